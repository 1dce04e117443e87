/**
 * Down projection of each token's experts, their weighted sum, and the residual stream: the third dispatch of a mixture.
 *
 *   y[r, n] += Σ_s weight[r, s] · ( Σ_k w[expert(r, s), n, k] · x[r · slots + s, k] + bias[expert(r, s), n] )
 *   z[r, n]  = norm_weight[n] · y[r, n],   with sums of z and of y² by runs of 32
 *
 * Shapes: x activation (items, cols), with sums · w experts of N rows behind each other, all in one shard, in any layout ·
 * aux holds biases and the next norm's weight · route: kernels/moe/route.ts · y (rows, stride) f32, in place · z activation (rows, N).
 * Source: transformers, models/qwen3_moe.
 *
 * How: as matmul_residual, one token a workgroup, slot after slot: the bits are those of expert_down and expert_sum.
 * Grid: (blocks of an expert, rows, 1).
 */
import type { LayoutName } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { DOT_PARAMS, dotFragment } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { ADD_QUAD, RESIDUAL_PARAMS } from "./residual.ts";
import { EXPERT_BIAS } from "./tile.ts";

export const expertDownSum = variants((layout: LayoutName) =>
  kernel({
    name: `expert_down_sum ${layout}`,
    reads: { words: "vec4u", scales: "vec4u", x: "vec4f", aux: "f32", route: "u32" },
    writes: { y: "vec4f", z: "f32" },
    params: {
      ...DOT_PARAMS,
      ...RESIDUAL_PARAMS,
      /** Of aux, or NONE; blocks of 32 stored rows an expert. */
      bias: "u32",
      expert_blocks: "u32",
      slots: "u32",
      /** Of route: where weights begin. */
      weights: "u32",
    },
    workgroup: 8,
    code: /* wgsl */ `${dotFragment(layouts[layout], 1)}${EXPERT_BIAS}${ADD_QUAD}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.y;
  let n = wg.x * 8u + lane;
  var acc = vec4f();
  for (var s = 0u; s < params.slots; s++) {
    let item = row * params.slots + s;
    let expert = route[item];
    dot_rows(expert * params.expert_blocks + wg.x, lane, item, lane);
    let v = dots[lane] + bias_of(expert, n);
    acc = fma(vec4f(bitcast<f32>(route[params.weights + item])), v, acc);
  }
  add_quad(row, n, acc, lane);
  workgroupBarrier();
  if (lane == 0u) { sum_run(row, wg.x, lane); }
}`,
  }),
);
