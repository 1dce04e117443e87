/**
 * The sampler: a token a row of logits, and its raw log-probability.
 *
 *   p[v] ∝ exp(logit[v] / temperature) over the v that top-k, then top-p, then min-p leave; temperature 0 is greedy
 *
 * The order is transformers': temperature, top-k, top-p, min-p. Tokens equal to the last one kept are kept with it. The
 * log-probability is the model's own, before all of that. Ties of greedy go to the lowest id.
 * Shapes: logits (rows, stride) f32 · batch: records of samples (batch.ts) · out (samples, 2) u32: id, bits of the
 * log-probability. A row with a NaN or an infinity yields id NONE.
 *
 * How: one workgroup a sample. Thresholds of top-k and top-p are found exactly by bisection over the 2^32 order-preserving
 * keys of an f32, 32 sums over the row each and only where asked for; the draw inverts the cumulative sum in the order of
 * the ids, lane by lane. One Philox number a token, keyed by (seed, choice, position). Grid: (samples, 1, 1).
 */
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { LOGIT_LANES, LOGIT_SUMS } from "./fragments/logits.ts";
import { PHILOX, PURPOSE } from "./fragments/philox.ts";
import { kernel } from "./kernel.ts";

/** Weights below e^this of the greatest are never drawn: an f32 would not hold them. */
const LEAST_LOG_WEIGHT = -87;

export const sample = kernel({
  name: "sample",
  reads: { logits: "f32", batch: "u32" },
  writes: { out: "u32" },
  params: { vocab: "u32", stride: "u32", samples: "u32" },
  workgroup: LOGIT_LANES,
  code: /* wgsl */ `${LOGIT_SUMS}${PHILOX}
fn field(s: u32, i: u32) -> u32 { return batch[params.samples + s * ${SAMPLE_WORDS}u + i]; }

/** What a draw keeps: logits of at least key and of at least best + low; a logit weighs exp((logit − best) · scale). */
struct Kept { key: u32, low: f32, best: f32, scale: f32 }
fn weight(v: f32, kept: Kept) -> f32 {
  let below = v - kept.best;
  return select(0.0, exp(max(below, kept.low) * kept.scale), below >= kept.low && key_of(v) >= kept.key);
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
  let temperature = bitcast<f32>(field(s, ${SAMPLE.temperature}u));
  var id = row.first;
  if (temperature > 0.0) { id = draw(s, base, lane, row, 1.0 / clamp(temperature, 1e-30, 1e30)); }
  if (lane == 0u) {
    out[2u * s] = id;
    out[2u * s + 1u] = bitcast<u32>((logits[base + id] - value_of(row.best)) - row.log_sum);
  }
}
fn draw(s: u32, base: u32, lane: u32, row: Row, scale: f32) -> u32 {
  let top_k = field(s, ${SAMPLE.topK}u);
  let top_p = bitcast<f32>(field(s, ${SAMPLE.topP}u));
  let min_p = bitcast<f32>(field(s, ${SAMPLE.minP}u));
  var kept = Kept(0u, ${LEAST_LOG_WEIGHT}.0 / scale, value_of(row.best), scale);
  var want = 0.0;
  var found = 0u;
  // Steps 0 to 31 find the key of top-k bit by bit, step 32 the mass that it leaves, steps 33 to 64 the highest key whose
  // mass reaches top_p of it: one loop, so that its tree compiles once. Sums in a fixed tree never grow as terms fall away.
  for (var step = 0u; step < 65u; step++) {
    let counts = step < 32u;
    if (counts && (top_k == 0u || top_k >= params.vocab)) { continue; }
    if (!counts && top_p >= 1.0) { break; }
    let bit = 0x80000000u >> ((step - select(33u, 0u, counts)) & 31u);
    var tried = kept;
    if (counts) { tried.key = kept.key | bit; }
    if (step > 32u) { tried.key = max(found | bit, kept.key); }
    var sum = 0.0;
    for (var i = lane; i < params.vocab; i += WG) {
      let v = logits[base + i];
      if (counts) { sum += select(0.0, 1.0, key_of(v) >= tried.key); } else { sum += weight(v, tried); }
    }
    let total = tree(lane, sum, 0u).sum;
    if (counts) {
      if (total >= f32(top_k)) { kept.key |= bit; }
    } else if (step == 32u) {
      want = top_p * total;
    } else if (total >= want && want > 0.0) {
      found |= bit;
    }
  }
  if (top_p < 1.0) { kept.key = select(row.best, min(max(kept.key, found), row.best), want > 0.0); }
  // In the exponent, where one rounding is far below a step of great logits.
  if (min_p > 0.0) { kept.low = max(kept.low, min(log(min_p), 0.0) / scale); }
  return pick(s, base, lane, kept, row.first);
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
  for (var i = from_id; i < to_id; i++) { own += weight(logits[base + i], kept); }
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
      let w = weight(logits[base + i], kept);
      sum += w;
      if (w > 0.0) { found = i; }
      if (wanted - before < sum) { break; }
    }
  }
  let id = ~tree(lane, 0.0, ~found).most;
  // The last lane's sum is above every target; were it not, the best token is always allowed.
  return select(id, greedy, id == NONE);
}`,
});
