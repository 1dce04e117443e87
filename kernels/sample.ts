/**
 * The sampler: a token a row of logits, and its raw log-probability.
 *
 *   p[v] ∝ exp(score[v] / temperature) over the v that top-k, then top-p, min-p and typical-p leave; temperature 0 is greedy
 *
 * The order is transformers': temperature, top-k, top-p, min-p, typical-p. Tokens equal to the last one kept are kept with it. The
 * log-probability is the model's own, before all of that. Ties of greedy go to the lowest id. Typical-p keeps tokens by how
 * near −log p is to the entropy of what is left, nearest first (Meister et al. 2022, "Locally Typical Sampling").
 * Shapes: logits (rows, stride) f32 · scores: the logits, or with `adjusted` what rules left of them (adjust.ts) · batch: records of
 * samples (batch.ts) · out (samples, 2) u32: id, bits of the log-probability. A row with a NaN or an infinity yields id NONE, one
 * whose scores are all masked NO_TOKEN.
 *
 * How: one workgroup a sample. Thresholds of top-k, top-p and typical-p are found exactly, two bits a sweep over the row, among the
 * 2^32 order-preserving keys of an f32, and only where asked for; the draw inverts the cumulative sum in the order of the ids,
 * lane by lane. One Philox number a token, keyed by (seed, choice, position). Grid: (samples, 1, 1).
 */
import { MASKED } from "./adjust.ts";
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { LOGIT_LANES, LOGIT_SUMS } from "./fragments/logits.ts";
import { PHILOX, PURPOSE } from "./fragments/philox.ts";
import { kernel } from "./kernel.ts";

/** Weights below e^this of the greatest are never drawn: an f32 would not hold them. */
const LEAST_LOG_WEIGHT = -87;

/** Id of a sample whose every token is masked. */
export const NO_TOKEN = 0xffff_fffe;

/** Sweeps over the row that find one threshold: what is wanted, the mean of typical-p, sixteen pairs of bits. */
const SWEEPS = 18;

/** The kernel of this file. */
export const sample = kernel({
  name: "sample",
  reads: { logits: "f32", scores: "f32", batch: "u32" },
  writes: { out: "u32" },
  params: { vocab: "u32", stride: "u32", samples: "u32", adjusted: "u32" },
  workgroup: LOGIT_LANES,
  code: /* wgsl */ `${LOGIT_SUMS}${PHILOX}
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
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let s = wg.x;
  let base = s * params.stride;
  let row = read_row(base, lane);
  if (row.best == BROKEN) {
    if (lane == 0u) { out[2u * s] = NONE; out[2u * s + 1u] = 0u; }
    return;
  }
  var best = vec2u(row.best, row.first);
  if (params.adjusted == 1u) {
    best = best_score(base, lane);
    if (value_of(best.x) <= ${MASKED / 2}) {
      if (lane == 0u) { out[2u * s] = ${NO_TOKEN}u; out[2u * s + 1u] = 0u; }
      return;
    }
  }
  let temperature = bitcast<f32>(field(s, ${SAMPLE.temperature}u));
  var id = best.y;
  if (temperature > 0.0) { id = draw(s, base, lane, best, 1.0 / clamp(temperature, 1e-30, 1e30)); }
  if (lane == 0u) {
    out[2u * s] = id;
    out[2u * s + 1u] = bitcast<u32>((logits[base + id] - value_of(row.best)) - row.log_sum);
  }
}
/** Key and lowest id of the greatest score, by one place with barriers. */
fn best_score(base: u32, lane: u32) -> vec2u {
  var key = 0u;
  var id = NONE;
  for (var i = lane; i < params.vocab; i += WG) {
    let k = key_of(scores[base + i]);
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
fn draw(s: u32, base: u32, lane: u32, best: vec2u, scale: f32) -> u32 {
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
      let v = scores[base + i];
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
  return pick(s, base, lane, kept, best.y);
}
/** Inverts the cumulative mass: lanes own neighbouring ids, in order. */
fn pick(s: u32, base: u32, lane: u32, kept: Kept, greedy: u32) -> u32 {
  let random = philox(
    vec4u(field(s, ${SAMPLE.position}u), field(s, ${SAMPLE.choice}u), ${PURPOSE.sample}u, 0u),
    vec2u(field(s, ${SAMPLE.seedLow}u), field(s, ${SAMPLE.seedHigh}u)));
  let share = (params.vocab + WG - 1u) / WG;
  let from_id = min(lane * share, params.vocab);
  let to_id = min(from_id + share, params.vocab);
  var own = 0.0;
  for (var i = from_id; i < to_id; i++) { own += weight(scores[base + i], kept); }
  workgroupBarrier();
  sums[lane] = own;
  workgroupBarrier();
  if (lane == 0u) {
    var sum = 0.0;
    for (var i = 0u; i < WG; i++) { sum += sums[i]; sums[i] = sum; }
  }
  workgroupBarrier();
  let wanted = unit_interval(random.x) * sums[WG - 1u];
  let before = select(sums[max(lane, 1u) - 1u], 0.0, lane == 0u);
  var found = NONE;
  if (wanted >= before && wanted < sums[lane]) {
    // From 0 again within the lane: small weights would drown in the sum before them.
    var sum = 0.0;
    for (var i = from_id; i < to_id; i++) {
      let w = weight(scores[base + i], kept);
      sum += w;
      if (w > 0.0) { found = i; }
      if (wanted - before < sum) { break; }
    }
  }
  let id = ~tree(lane, 0.0, ~found).most;
  // u below 1 keeps the target below the whole sum, so that a lane has it; the greatest is what is left to say.
  return select(id, greedy, id == NONE);
}`,
});
