/**
 * Each item's way back: the down projection of its expert, not yet weighted.
 *
 *   out[i, n] = Σ_k w[expert(i), n, k] · x[i, k] + bias[expert(i), n]
 *
 * Shapes: x activation (items, cols), with sums · w experts of N rows behind each other, in any layout · aux holds the biases ·
 * route, lists: kernels/moe/route.ts · out f32 (items, out_stride).
 *
 * How: as expert_gate_up with lists. Behind it comes expert_sum. Grid: (blocks of an expert, most tiles, 1).
 */
import type { LayoutName } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { DOT_PARAMS, dotFragment } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { EXPERT_PARAMS, tileFragment } from "./tile.ts";

export const expertDown = variants((layout: LayoutName) => {
  const { rows, code } = tileFragment(true, "item");
  return kernel({
    name: `expert_down ${layout}`,
    reads: { words: "vec4u", scales: "vec4u", x: "vec4f", aux: "f32", lists: "u32" },
    writes: { out: "vec4f" },
    params: {
      ...DOT_PARAMS,
      ...EXPERT_PARAMS,
      /** Of out, in vec4f. */
      out_stride: "u32",
    },
    workgroup: 8,
    code: /* wgsl */ `${dotFragment(layouts[layout], rows, { listed: true })}${code}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tile = tile_at(wg.y);
  if (!mine(tile.expert)) { return; }
  take_items(tile, lane);
  dot_rows((tile.expert - params.first_expert) * params.expert_blocks + wg.x, lane, 0u, lane);
  let bias = bias_of(tile.expert, wg.x * 8u + lane);
  for (var m = 0u; m < tile.count; m++) {
    out[items[m] * params.out_stride + wg.x * 8u + lane] = dots[m * WG + lane] + bias;
  }
}`,
  });
});
