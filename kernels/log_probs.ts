/**
 * Raw log-probabilities of rows of logits: of a target token, and of the N best.
 *
 *   lp[v] = logit[v] − log Σ exp(logit)
 *
 * Shapes: logits (rows, stride) f32 · batch: `target` of the samples' records (batch.ts) · out (samples, 2 + 2 N) u32:
 * target's log-probability or 0, 1 where a logit is not finite, then (id, bits of the log-probability), best first.
 * Ties go to the lowest id. An N past the vocabulary ends in id NONE with 0; where a logit is not finite the rest means nothing.
 *
 * How: one workgroup a row; the i-th best is the greatest (logit, −id) below the one before it. Grid: (samples, 1, 1).
 */
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { LOGIT_LANES, LOGIT_SUMS } from "./fragments/logits.ts";
import { kernel } from "./kernel.ts";

/** Most entries of `top` that one row may ask for. */
export const MAX_TOP = 64;

/** The kernel of this file. */
export const logProbs = kernel({
  name: "log_probs",
  reads: { logits: "f32", batch: "u32" },
  writes: { out: "u32" },
  params: { vocab: "u32", stride: "u32", samples: "u32", top: "u32" },
  workgroup: LOGIT_LANES,
  code: /* wgsl */ `${LOGIT_SUMS}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let base = wg.x * params.stride;
  let at = wg.x * (2u + 2u * params.top);
  let broken = not_finite(base, lane);
  let best = value_of(greatest_key(base, lane));
  let sum = log_sum(base, lane, best);
  if (lane == 0u) {
    let wanted = batch[params.samples + wg.x * ${SAMPLE_WORDS}u + ${SAMPLE.target}u];
    var lp = 0.0;
    if (wanted < params.vocab) { lp = (logits[base + wanted] - best) - sum; }
    out[at] = bitcast<u32>(lp);
    out[at + 1u] = select(0u, 1u, broken);
  }
  var last_key = 0xffffffffu; // above every key, before every id
  var last_id = NONE;
  for (var n = 0u; n < params.top; n++) {
    var key = 0u;
    var id = NONE;
    for (var i = lane; i < params.vocab; i += WG) {
      let k = key_of(logits[base + i]);
      let below = k < last_key || (k == last_key && i > last_id);
      if (below && k > key) { key = k; id = i; }
    }
    last_key = tree_max(lane, key);
    last_id = tree_min(lane, select(NONE, id, key == last_key));
    if (lane == 0u) {
      var lp = 0.0;
      if (last_id != NONE) { lp = (value_of(last_key) - best) - sum; }
      out[at + 2u + 2u * n] = last_id;
      out[at + 3u + 2u * n] = bitcast<u32>(lp);
    }
  }
}`,
});
