/**
 * Gate, up and activation of each token's experts: the second dispatch of a mixture of experts.
 *
 *   out[i, n] = act(gate(i, n)) · up(i, n),   gate(i, n) = inverse_rms(row) · Σ_k w[expert(i), n, k] · x[row, k] + bias[expert(i), n]
 *
 * Shapes: x activation (rows, cols), multiplied by the norm's weight · w experts of equal size behind each other, each
 * blocks of 32 gate rows and of 32 up rows by turns · aux holds the biases in the same order · route, lists: kernels/moe/route.ts ·
 * out activation (items, N), with sums.
 * Source: transformers, models/qwen3_moe, models/gpt_oss.
 *
 * How: as norm_gate_up, the block found by the item's expert. One item a workgroup, or, with lists, the up to TILE_ROWS
 * items of a tile; a short tile repeats its last row and drops the copies. An item whose expert lies in another shard is
 * left alone. Grid: (pairs of blocks of an expert, items or most tiles, 1).
 */
import type { LayoutName } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { DOT_PARAMS, dotFragment } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { GATED_PAIR, GATED_PARAMS } from "./gated.ts";
import { EXPERT_PARAMS, tileFragment } from "./tile.ts";

export const expertGateUp = variants((layout: LayoutName, tiled: boolean) => {
  const { rows, code } = tileFragment(tiled, "item / params.slots");
  return kernel({
    name: `expert_gate_up ${layout}${tiled ? " tiled" : ""}`,
    reads: { words: "vec4u", scales: "vec4u", x: "vec4f", aux: "f32", route: "u32", lists: "u32" },
    writes: { out: "f32" },
    params: {
      ...DOT_PARAMS,
      ...GATED_PARAMS,
      ...EXPERT_PARAMS,
      slots: "u32",
      /** Of route: where 1 / rms begins. */
      inverses: "u32",
      /** Of out, in vec4f; runs a row; where its sums begin. */
      out_stride: "u32",
      out_runs: "u32",
      out_sums: "u32",
    },
    workgroup: 16,
    code: /* wgsl */ `${dotFragment(layouts[layout], rows, { listed: true })}${GATED_PAIR}${code}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tile = tile_at(wg.y);
  if (!mine(tile.expert)) { return; }
  take_items(tile, lane);
  let quad = lane & 7u;
  let half = lane >> 3u;
  let block = wg.x * 2u + half;
  dot_rows((tile.expert - params.first_expert) * params.expert_blocks + block, quad, 0u, lane);
  let bias = bias_of(tile.expert, block * 8u + quad);
  for (var m = 0u; m < ${rows}u; m++) {
    let inverse = bitcast<f32>(route[params.inverses + x_rows[m]]);
    dots[m * WG + lane] = fma(dots[m * WG + lane], vec4f(inverse), bias);
  }
  workgroupBarrier();
  if (half == 0u) {
    for (var m = 0u; m < tile.count; m++) {
      let u = gated_pair(dots[m * WG + quad], dots[m * WG + 8u + quad]);
      let i = 4u * (items[m] * params.out_stride + wg.x * 8u + quad);
      out[i] = u.x;
      out[i + 1u] = u.y;
      out[i + 2u] = u.z;
      out[i + 3u] = u.w;
      dots[m * WG + quad] = u;
    }
  }
  workgroupBarrier();
  if (lane < tile.count) {
    var sum = dots[lane * WG];
    for (var i = 1u; i < 8u; i++) { sum += dots[lane * WG + i]; }
    out[params.out_sums + items[lane] * params.out_runs + wg.x] = sum4(sum);
  }
}`,
  });
});
