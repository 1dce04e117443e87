/**
 * Values of latent attention: each head's weighted latent, taken through its values' projection.
 *
 *   out[m, h · value_dim + n] = Σ_k w[h, n, k] · x[m · heads + h, k]
 *
 * Shapes: x activation (rows · heads, latent), with sums · w heads of value_dim rows and `latent` columns behind each other, each from a
 * whole block on, in any layout · aux holds tables · out f32 (rows, out_stride), zeros behind the last head.
 * Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.
 *
 * How: the inner product of the other matmuls, of the x rows of the block's head. Grid: (blocks of the shard, rows / ROWS, 1).
 */
import type { LayoutName } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { DOT_PARAMS, dotFragment } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import type { LatentRows } from "./latent_query.ts";

export const latentValue = variants((layout: LayoutName, rows: LatentRows) =>
  kernel({
    name: `latent_value ${layout}${rows === 1 ? "" : " four rows"}`,
    reads: { words: "vec4u", scales: "vec4u", x: "vec4f", aux: "f32" },
    writes: { out: "f32" },
    params: {
      ...DOT_PARAMS,
      rows: "u32",
      heads: "u32",
      /** Of the shard; and blocks of 32 stored rows a head. */
      first_head: "u32",
      head_blocks: "u32",
      value_dim: "u32",
      /** Of out, in f32s. */
      out_stride: "u32",
    },
    workgroup: 8,
    code: /* wgsl */ `${dotFragment(layouts[layout], rows, { listed: true })}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = params.first_head + wg.x / params.head_blocks;
  let first = wg.y * ${rows}u;
  if (lane < ${rows}u) { x_rows[lane] = min(first + lane, params.rows - 1u) * params.heads + head; }
  workgroupBarrier();
  dot_rows(wg.x, lane, 0u, lane);
  let block = wg.x % params.head_blocks;
  let behind = params.heads * params.value_dim;
  for (var m = 0u; m < min(${rows}u, params.rows - first); m++) {
    let row = (first + m) * params.out_stride;
    for (var c = 0u; c < 4u; c++) {
      let n = block * 32u + lane * 4u + c;
      if (n < params.value_dim) { out[row + head * params.value_dim + n] = dots[m * WG + lane][c]; }
    }
    if (head == params.heads - 1u && block == 0u) {
      for (var i = behind + lane; i < params.out_stride; i += WG) { out[row + i] = 0.0; }
    }
  }
}`,
  }),
);
