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
 * How: one workgroup a sample. Thresholds of top-k, top-p and typical-p are found exactly (fragments/kept.ts); the draw inverts the
 * cumulative sum in the order of the ids, lane by lane. One Philox number a token, keyed by (seed, choice, position, purpose). Grid: (samples, 1, 1).
 */
import { MASKED } from "./adjust.ts";
import { SAMPLE } from "./fragments/batch.ts";
import { inverted, KEPT } from "./fragments/kept.ts";
import { LOGIT_LANES, LOGIT_SUMS } from "./fragments/logits.ts";
import { PHILOX } from "./fragments/philox.ts";
import { kernel } from "./kernel.ts";

/** Id of a sample whose every token is masked. */
export const NO_TOKEN = 0xffff_fffe;

const PICK = inverted("pick", "base: u32, kept: Kept", "weight(scores[base + i], kept)");

/** The kernel of this file. */
export const sample = kernel({
  name: "sample",
  reads: { logits: "f32", scores: "f32", batch: "u32" },
  writes: { out: "u32" },
  params: { vocab: "u32", stride: "u32", samples: "u32", adjusted: "u32" },
  workgroup: LOGIT_LANES,
  code: /* wgsl */ `${LOGIT_SUMS}${PHILOX}${KEPT}${PICK}
fn score(base: u32, i: u32) -> f32 { return scores[base + i]; }
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
fn draw(s: u32, base: u32, lane: u32, best: vec2u, scale: f32) -> u32 {
  let random = philox(
    vec4u(field(s, ${SAMPLE.position}u), field(s, ${SAMPLE.choice}u), field(s, ${SAMPLE.purpose}u), 0u),
    vec2u(field(s, ${SAMPLE.seedLow}u), field(s, ${SAMPLE.seedHigh}u)));
  let id = pick(lane, unit_interval(random.x), base, keep(s, base, lane, best, scale));
  // u below 1 keeps the target below the whole sum, so that a lane has it; the greatest is what is left to say.
  return select(id, best.y, id == NONE);
}`,
});
