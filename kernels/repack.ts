/**
 * Repacks rows of a checkpoint's tensor into a layout, bit for bit, while they stream in.
 *
 * Shapes: source (rows, cols) as stored on the hub: f32; f16 or bf16 pairs; MLX's 4-bit words, eight codes from the lowest
 * bits up; MLX's 8-bit words; scales with their biases in `second`, 16 or 32 bits each · out: words or scales (layout.ts).
 * Row `first_row` + i goes to stored row 32 · (first_block + block_stride · ⌊row / 32⌋) + row mod 32, so that the parts of a fused matrix interleave.
 *
 * How: one lane a word of out; what lies past the source's columns becomes zero. Grid: (words / 64, rows, 1).
 */
import { BLOCK_ROWS } from "./formats/layout.ts";
import { kernel } from "./kernel.ts";

/** What the source is; the index is the kernel's param. */
export const REPACK_MODES = ["f32", "halves", "nibbles", "bytes", "scales16", "scales32"] as const;
export type RepackMode = (typeof REPACK_MODES)[number];

/** Words of out that one workgroup writes. */
export const REPACK_LANES = 64;

/** The kernel of this file; never part of a step. */
export const repack = kernel({
  name: "repack",
  reads: { source: "u32", second: "u32" },
  writes: { out: "u32" },
  params: {
    mode: "u32",
    /** Elements a row of the source: weights for f32 and halves, words for nibbles and bytes, groups for scales. */
    source_cols: "u32",
    /** Words a row of out: u32 words of weights, or groups. */
    out_cols: "u32",
    first_row: "u32",
    first_block: "u32",
    block_stride: "u32",
    /** Elements of the source before the first row that is taken. */
    source_offset: "u32",
  },
  workgroup: REPACK_LANES,
  code: /* wgsl */ `
fn half_at(i: u32) -> u32 { return (source[i >> 1u] >> (16u * (i & 1u))) & 0xffffu; }
fn second_half_at(i: u32) -> u32 { return (second[i >> 1u] >> (16u * (i & 1u))) & 0xffffu; }
/** Code i at bits 4i → byte b holds codes b and 4 + b. */
fn spread(w: u32) -> u32 {
  var out = 0u;
  for (var b = 0u; b < 4u; b++) {
    out |= ((w >> (4u * b)) & 15u) << (8u * b);
    out |= ((w >> (16u + 4u * b)) & 15u) << (8u * b + 4u);
  }
  return out;
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let c = wg.x * WG + lane;
  if (c >= params.out_cols) { return; }
  let cols = params.source_cols;
  let at = params.source_offset + wg.y * cols;
  let row = params.first_row + wg.y;
  let block = params.first_block + params.block_stride * (row / ${BLOCK_ROWS}u);
  let r = row % ${BLOCK_ROWS}u;
  let i = (block * params.out_cols + c) * ${BLOCK_ROWS}u + r;
  switch (params.mode) {
    case 0u: { out[i] = select(0u, source[at + min(c, cols - 1u)], c < cols); }
    case 1u: {
      let low = select(0u, half_at(at + min(2u * c, cols - 1u)), 2u * c < cols);
      let high = select(0u, half_at(at + min(2u * c + 1u, cols - 1u)), 2u * c + 1u < cols);
      out[i] = low | (high << 16u);
    }
    case 2u: { out[i] = spread(source[at + c]); }
    case 3u: { out[i] = source[at + c]; }
    case 4u: { out[i] = half_at(at + c) | (second_half_at(at + c) << 16u); }
    default: {
      let two = (block * params.out_cols + c) * ${2 * BLOCK_ROWS}u + r;
      out[two] = source[at + c];
      out[two + ${BLOCK_ROWS}u] = second[at + c];
    }
  }
}`,
});
