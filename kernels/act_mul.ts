/**
 * Activation and product of gate and up that two matmuls left behind each other.
 *
 *   out[m, n] = act(gate[m, n]) · up[m, n]
 *
 * Shapes: x (rows, x_stride) f32, gate from column 0 and up from column `up` on · out activation (rows, N), with sums.
 * Where gate and up are stored alike, norm_gate_up does it all; its products and sums have the same order.
 *
 * How: one lane a quad of four outputs, eight a run of 32. Grid: (runs / 8, rows, 1).
 */
import { ACTIVATE } from "./fragments/act.ts";
import { FIXED_SUMS } from "./fragments/activation.ts";
import { kernel } from "./kernel.ts";

/** Runs of 32 outputs that one workgroup makes. */
export const ACT_MUL_RUNS = 8;

/** The kernel of this file. */
export const actMul = kernel({
  name: "act_mul",
  reads: { x: "vec4f" },
  writes: { out: "f32" },
  params: {
    activation: "u32",
    /** In vec4f. */
    x_stride: "u32",
    up: "u32",
    out_stride: "u32",
    out_runs: "u32",
    out_sums: "u32",
  },
  workgroup: 8 * ACT_MUL_RUNS,
  code: /* wgsl */ `${ACTIVATE}${FIXED_SUMS}
var<workgroup> quads: array<vec4f, WG>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quad = wg.x * WG + lane;
  if (quad < params.out_runs * 8u) {
    let at = wg.y * params.x_stride + quad;
    let u = activate(x[at], params.activation) * x[at + params.up];
    let i = wg.y * params.out_stride + quad * 4u;
    for (var c = 0u; c < 4u; c++) { out[i + c] = u[c]; }
    quads[lane] = u;
  }
  workgroupBarrier();
  let run = wg.x * ${ACT_MUL_RUNS}u + lane;
  if (lane < ${ACT_MUL_RUNS}u && run < params.out_runs) {
    var sum = quads[lane * 8u];
    for (var i = 1u; i < 8u; i++) { sum += quads[lane * 8u + i]; }
    out[params.out_sums + wg.y * params.out_runs + run] = sum4(sum);
  }
}`,
});
