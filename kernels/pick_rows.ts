/**
 * Copies the rows whose logits are wanted into an activation of their own, sums and squares with them.
 *
 *   out[s, k] = x[row(s), k]
 *
 * Shapes: x activation (rows, cols) · out activation (samples, cols). Grid: (samples, 1, 1).
 */
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { kernel } from "./kernel.ts";

export const pickRows = kernel({
  name: "pick_rows",
  reads: { x: "f32", batch: "u32" },
  writes: { out: "f32" },
  params: {
    /** Where the samples' records begin in the batch. */
    samples: "u32",
    stride: "u32",
    runs: "u32",
    x_sums: "u32",
    x_squares: "u32",
    out_sums: "u32",
    out_squares: "u32",
  },
  workgroup: 64,
  code: /* wgsl */ `
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = batch[params.samples + wg.x * ${SAMPLE_WORDS}u + ${SAMPLE.row}u];
  for (var k = lane; k < params.stride; k += WG) { out[wg.x * params.stride + k] = x[row * params.stride + k]; }
  for (var i = lane; i < params.runs; i += WG) {
    out[params.out_sums + wg.x * params.runs + i] = x[params.x_sums + row * params.runs + i];
    out[params.out_squares + wg.x * params.runs + i] = x[params.x_squares + row * params.runs + i];
  }
}`,
});
