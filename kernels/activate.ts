/**
 * The activation of an MLP without a gate, between its two matmuls.
 *
 *   out[m, n] = act(x[m, n]),   with sums by runs of 32
 *
 * Shapes: x (rows, x_stride) f32, 0 behind cols · out activation (rows, cols). Every activation is 0 at 0, so zeros stay behind cols.
 *
 * How: eight lanes a run. Grid: (runs / 8, rows, 1).
 */
import { ACTIVATE } from "./fragments/act.ts";
import { FIXED_SUMS } from "./fragments/activation.ts";
import { kernel } from "./kernel.ts";

/** Runs of 32 a workgroup. */
export const ACTIVATE_RUNS = 8;

/** The kernel of this file. */
export const activateRows = kernel({
  name: "activate",
  reads: { x: "vec4f" },
  writes: { out: "f32" },
  params: {
    activation: "u32",
    /** Of x, in vec4f. */
    x_stride: "u32",
    /** Of out, in f32s; runs a row; where its sums begin. */
    stride: "u32",
    runs: "u32",
    sums: "u32",
  },
  workgroup: 8 * ACTIVATE_RUNS,
  code: /* wgsl */ `${ACTIVATE}${FIXED_SUMS}
var<workgroup> quads: array<vec4f, WG>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let run = wg.x * ${ACTIVATE_RUNS}u;
  let k = run * 32u + lane * 4u;
  if (k < params.stride) {
    let v = activate(x[wg.y * params.x_stride + k / 4u], params.activation);
    for (var c = 0u; c < 4u; c++) { out[wg.y * params.stride + k + c] = v[c]; }
    quads[lane] = v;
  }
  workgroupBarrier();
  if (lane < ${ACTIVATE_RUNS}u && run + lane < params.runs) {
    let q = lane * 8u;
    var sum = quads[q];
    for (var i = 1u; i < 8u; i++) { sum += quads[q + i]; }
    out[params.sums + wg.y * params.runs + run + lane] = sum4(sum);
  }
}`,
});
