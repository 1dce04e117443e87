/**
 * Columns of an activation in another order: what a matmul reads whose weights are sorted by quantization group (act-order).
 *
 *   out[m, c] = x[m, order[c]] for c below cols, zeros behind,   with sums by runs of 32; squares are copied, since a norm's are of the residual stream
 *
 * Shapes: x and out activations (rows, cols) · order (cols) u32.
 * Source: Frantar et al. 2022, "GPTQ"; `desc_act` of its implementations.
 *
 * How: one lane a quad of four columns, eight a run. Grid: (runs / 8, rows, 1).
 */
import { FIXED_SUMS } from "./fragments/activation.ts";
import { kernel } from "./kernel.ts";

/** Runs of 32 columns that one workgroup makes. */
export const PERMUTE_RUNS = 8;

/** The kernel of this file. */
export const permute = kernel({
  name: "permute",
  reads: { x: "f32", order: "u32" },
  writes: { out: "f32" },
  params: {
    cols: "u32",
    stride: "u32",
    runs: "u32",
    sums: "u32",
    /** Where the squares begin, of both. */
    squares: "u32",
  },
  workgroup: 8 * PERMUTE_RUNS,
  code: /* wgsl */ `${FIXED_SUMS}
var<workgroup> quads: array<vec4f, WG>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = (wg.x * WG + lane) * 4u;
  if (column < params.stride) {
    var v = vec4f();
    for (var i = 0u; i < 4u; i++) {
      if (column + i < params.cols) { v[i] = x[wg.y * params.stride + order[column + i]]; }
      out[wg.y * params.stride + column + i] = v[i];
    }
    quads[lane] = v;
  }
  workgroupBarrier();
  let run = wg.x * ${PERMUTE_RUNS}u + lane;
  if (lane < ${PERMUTE_RUNS}u && run < params.runs) {
    var sum = quads[lane * 8u];
    for (var i = 1u; i < 8u; i++) { sum += quads[lane * 8u + i]; }
    out[params.sums + wg.y * params.runs + run] = sum4(sum);
    let at = params.squares + wg.y * params.runs + run;
    out[at] = x[at];
  }
}`,
});
