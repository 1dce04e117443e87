/**
 * Rows that lie behind each other without room between, as an activation.
 *
 *   out[m, k] = x[m, k] for k < cols, else 0,   with sums by runs of 32
 *
 * Shapes: x (rows, cols) f32 · out activation (rows, cols).
 *
 * How: a lane has a run. Grid: (runs / 64, rows, 1).
 */
import { FIXED_SUMS } from "./fragments/activation.ts";
import { kernel } from "./kernel.ts";

/** Runs of 32 a workgroup. */
export const PAD_RUNS = 64;

/** The kernel of this file. */
export const padRows = kernel({
  name: "pad_rows",
  reads: { x: "f32" },
  writes: { out: "f32" },
  params: {
    cols: "u32",
    /** Of out, in f32s; runs a row; where its sums begin. */
    stride: "u32",
    runs: "u32",
    sums: "u32",
  },
  workgroup: PAD_RUNS,
  code: /* wgsl */ `${FIXED_SUMS}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let run = wg.x * WG + lane;
  if (run < params.runs) {
    var sum = vec4f();
    for (var i = 0u; i < 32u; i += 4u) {
      var quad = vec4f();
      for (var c = 0u; c < 4u; c++) {
        let k = run * 32u + i + c;
        if (k < params.cols) { quad[c] = x[wg.y * params.cols + k]; }
        out[wg.y * params.stride + k] = quad[c];
      }
      if (i == 0u) { sum = quad; } else { sum += quad; }
    }
    out[params.sums + wg.y * params.runs + run] = sum4(sum);
  }
}`,
});
