/**
 * What a draw keeps of a row of scores, and how a token is drawn of it: shared by the sampler and by the verification of proposals.
 *
 * The thresholds of top-k, top-p and typical-p are found exactly, two bits a sweep over the row, among the 2^32 order-preserving
 * keys of an f32, and only where asked for.
 */
import { SAMPLE, SAMPLE_WORDS } from "./batch.ts";

/** Weights below e^this of the greatest are never drawn: an f32 would not hold them. */
const LEAST_LOG_WEIGHT = -87;
/** Sweeps over the row that find one threshold: what is wanted, the mean of typical-p, sixteen pairs of bits. */
const SWEEPS = 18;

/**
 * Declares `field`, `Kept`, `weight`, `best_score` and `keep`. The kernel has LOGIT_SUMS (logits.ts), reads `batch`, has the param
 * `samples`, and declares `fn score(base: u32, i: u32) -> f32`.
 */
export const KEPT = /* wgsl */ `
var<workgroup> threes: array<vec3f, WG>;
fn field(s: u32, i: u32) -> u32 { return batch[params.samples + s * ${SAMPLE_WORDS}u + i]; }

/** What a draw keeps: scores of at least key, of at least best + low, and those whose distance from the mean ranks at least near. */
struct Kept { key: u32, low: f32, best: f32, scale: f32, mean: f32, near: u32 }
fn log_weight(v: f32, kept: Kept) -> f32 { return max(v - kept.best, kept.low) * kept.scale; }
/** Greater for those nearer to the mean: −log p − H = mean − log weight. */
fn nearness(v: f32, kept: Kept) -> u32 { return key_of(-abs(kept.mean - log_weight(v, kept))); }
fn weight(v: f32, kept: Kept) -> f32 {
  let heavy = v - kept.best >= kept.low && key_of(v) >= kept.key;
  return select(0.0, exp(log_weight(v, kept)), heavy && (kept.near == 0u || nearness(v, kept) >= kept.near));
}
/** Three sums over the lanes: 16 lanes add 16 each, one adds those; a barrier costs software adapters more than sixteen sums. */
fn sum_of_threes(lane: u32, add: vec3f) -> vec3f {
  workgroupBarrier();
  threes[lane] = add;
  workgroupBarrier();
  if (lane < 16u) { for (var i = lane + 16u; i < WG; i += 16u) { threes[lane] += threes[i]; } }
  workgroupBarrier();
  if (lane == 0u) { for (var i = 1u; i < 16u; i++) { threes[0] += threes[i]; } }
  return workgroupUniformLoad(&threes[0]);
}
/** Key and lowest id of the greatest score, by one place with barriers. */
fn best_score(base: u32, lane: u32) -> vec2u {
  var key = 0u;
  var id = NONE;
  for (var i = lane; i < params.vocab; i += WG) {
    let k = key_of(score(base, i));
    if (k > key) { key = k; id = i; }
  }
  var best = vec2u();
  var found = key;
  for (var turn = 0u; turn < 2u; turn++) {
    let most = tree(lane, 0.0, found).most;
    if (turn == 0u) {
      best.x = most;
      found = select(0u, ~id, key == most);
    } else {
      best.y = ~most;
    }
  }
  return best;
}
/** The thresholds of sample s, whose scores begin at base; best is of them. */
fn keep(s: u32, base: u32, lane: u32, best: vec2u, scale: f32) -> Kept {
  let top_k = field(s, ${SAMPLE.topK}u);
  let top_p = bitcast<f32>(field(s, ${SAMPLE.topP}u));
  let min_p = bitcast<f32>(field(s, ${SAMPLE.minP}u));
  let typical_p = bitcast<f32>(field(s, ${SAMPLE.typicalP}u));
  var kept = Kept(0u, ${LEAST_LOG_WEIGHT}.0 / scale, value_of(best.x), scale, 0.0, 0u);
  var want = 0.0;
  var found = 0u;
  // One loop for three thresholds, so that its barriers compile once. Each is the highest rank whose tokens, with all above them, are
  // top_k many, or weigh top_p or typical_p of what is left; sums in a fixed order never grow as terms fall away.
  for (var step = 0u; step < ${3 * SWEEPS}u; step++) {
    let phase = step / ${SWEEPS}u;
    let sweep = step % ${SWEEPS}u;
    let counts = phase == 0u;
    let typical = phase == 2u;
    // In the exponent, where one rounding is far below a step of great scores.
    if (step == ${2 * SWEEPS}u && min_p > 0.0) { kept.low = max(kept.low, min(log(min_p), 0.0) / scale); }
    if (counts && (top_k == 0u || top_k >= params.vocab)) { continue; }
    if (step == 0u) { want = f32(top_k); continue; }
    if (phase == 1u && top_p >= 1.0) { continue; }
    if (typical && typical_p >= 1.0) { break; }
    if (sweep == 1u && !typical) { continue; }
    let shift = (${2 * SWEEPS - 2}u - 2u * sweep) & 31u;
    let tried = vec3u(found) | (vec3u(1u, 2u, 3u) << vec3u(shift));
    var sum = vec3f();
    for (var i = lane; i < params.vocab; i += WG) {
      let v = score(base, i);
      var add = 1.0;
      if (!counts) { add = weight(v, kept); }
      var rank = key_of(v);
      if (typical) { rank = nearness(v, kept); }
      if (sweep == 0u) { sum.x += add; }
      else if (sweep == 1u) { sum.x += add * log_weight(v, kept); }
      else { sum += select(vec3f(), vec3f(add), vec3u(rank) >= tried); }
    }
    let total = sum_of_threes(lane, sum);
    if (sweep == 0u) {
      want = select(top_p, typical_p, typical) * total.x;
      found = 0u;
      kept.mean = total.x;
    } else if (sweep == 1u) {
      kept.mean = total.x / kept.mean;
    } else {
      let reached = select(vec3u(), vec3u(1u), total >= vec3f(want));
      found |= (reached.x + reached.y + reached.z) << shift;
    }
    if (sweep == ${SWEEPS - 1}u) {
      if (typical) { kept.near = found; }
      else if (want > 0.0) { kept.key = min(max(kept.key, found), best.x); }
      else { kept.key = best.x; }
    }
  }
  return kept;
}`;

/**
 * Declares `name(lane, u, …parameters)`: the id at which the cumulative sum of `term`, a WGSL expression of an id \`i\` and of the
 * parameters, passes u of the whole; NONE where it never does. Lanes own neighbouring ids, in order.
 */
export const inverted = (name: string, parameters: string, term: string): string => /* wgsl */ `
fn ${name}(lane: u32, u: f32, ${parameters}) -> u32 {
  let share = (params.vocab + WG - 1u) / WG;
  let from_id = min(lane * share, params.vocab);
  let to_id = min(from_id + share, params.vocab);
  var own = 0.0;
  for (var i = from_id; i < to_id; i++) { own += ${term}; }
  workgroupBarrier();
  sums[lane] = own;
  workgroupBarrier();
  if (lane == 0u) {
    var sum = 0.0;
    for (var i = 0u; i < WG; i++) { sum += sums[i]; sums[i] = sum; }
  }
  workgroupBarrier();
  let wanted = u * sums[WG - 1u];
  let before = select(sums[max(lane, 1u) - 1u], 0.0, lane == 0u);
  var found = NONE;
  if (wanted >= before && wanted < sums[lane]) {
    // From 0 again within the lane: small weights would drown in the sum before them.
    var sum = 0.0;
    for (var i = from_id; i < to_id; i++) {
      let w = ${term};
      sum += w;
      if (w > 0.0) { found = i; }
      if (wanted - before < sum) { break; }
    }
  }
  return ~tree(lane, 0.0, ~found).most;
}`;
