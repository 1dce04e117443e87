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
  let row = read_row(base, lane);
  if (row.best == BROKEN) {
    for (var i = lane; i < 2u + 2u * params.top; i += WG) { out[at + i] = select(0u, 1u, i == 1u); }
    return;
  }
  let best = value_of(row.best);
  if (lane == 0u) {
    let wanted = batch[params.samples + wg.x * ${SAMPLE_WORDS}u + ${SAMPLE.target}u];
    var lp = 0.0;
    if (wanted < params.vocab) { lp = (logits[base + wanted] - best) - row.log_sum; }
    out[at] = bitcast<u32>(lp);
    out[at + 1u] = 0u;
  }
  var last_key = BROKEN; // above every key, before every id
  var last_id = NONE;
  for (var n = 0u; n < params.top; n++) {
    var key = 0u;
    var id = NONE;
    for (var i = lane; i < params.vocab; i += WG) {
      let k = key_of(logits[base + i]);
      let below = k < last_key || (k == last_key && i > last_id);
      if (below && k > key) { key = k; id = i; }
    }
    // The greatest key, then the lowest id that has it, by one place with barriers.
    var found = key;
    for (var turn = 0u; turn < 2u; turn++) {
      let most = tree(lane, 0.0, found).most;
      if (turn == 0u) {
        last_key = most;
        found = select(0u, ~id, key == most);
      } else {
        last_id = ~most;
      }
    }
    if (lane == 0u) {
      var lp = 0.0;
      if (last_id != NONE) { lp = (value_of(last_key) - best) - row.log_sum; }
      out[at + 2u + 2u * n] = last_id;
      out[at + 3u + 2u * n] = bitcast<u32>(lp);
    }
  }
}`,
});
