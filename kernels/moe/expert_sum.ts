/**
 * The weighted sum of a token's experts, added to the residual stream: behind expert_down.
 *
 *   y[r, n] += Σ_s weight[r, s] · x[r · slots + s, n],   z[r, n] = norm_weight[n] · y[r, n]
 *
 * Shapes: x f32 (items, stride) · route: kernels/moe/route.ts · aux holds the next norm's weight · y (rows, stride) f32, in place ·
 * z activation (rows, N). The order of the sum is that of the slots. Grid: (runs / 8, rows, 1).
 */
import { FIXED_SUMS } from "../fragments/activation.ts";
import { kernel } from "../kernel.ts";
import { ADD_QUAD, RESIDUAL_PARAMS } from "./residual.ts";

export const expertSum = kernel({
  name: "expert_sum",
  reads: { x: "vec4f", route: "u32", aux: "f32" },
  writes: { y: "vec4f", z: "f32" },
  params: { ...RESIDUAL_PARAMS, slots: "u32", weights: "u32" },
  workgroup: 64,
  code: /* wgsl */ `${FIXED_SUMS}${ADD_QUAD}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.y;
  let n = wg.x * WG + lane;
  if (n < params.y_stride) {
    var acc = vec4f();
    for (var s = 0u; s < params.slots; s++) {
      let item = row * params.slots + s;
      acc = fma(vec4f(bitcast<f32>(route[params.weights + item])), x[item * params.y_stride + n], acc);
    }
    add_quad(row, n, acc, lane);
  }
  workgroupBarrier();
  if (lane % 8u == 0u && n < params.y_stride) { sum_run(row, n / 8u, lane); }
}`,
});
