/**
 * Repacks a piece of a checkpoint's tensor into a layout, bit for bit, while it streams in.
 *
 *   out[place(row, column)] |= source[element(row, column)]
 *
 * Shapes: source is a bit stream of elements of `bits` bits, from the low bits of its first word up; a piece holds elements 0 … count-1.
 * Rows and columns are found by two strides each, so that one kernel reads row-major tensors, transposed ones, and those whose words pack
 * eight inputs or eight outputs:
 *
 *   element = base + ⌊t / row_tile⌋ · row_tile_stride + (t mod row_tile) · row_stride + the same of the column,
 *   t       = row_first + ⌊row / take⌋ · period + row mod take         the tensor's row that is stored as `row` of its part
 *
 * out: codes by runs of 32 columns in one or two planes of bits (layout.ts, bit_planes.ts), or group parameters in a row of bits. Row `row` of
 * the part is stored row 32 · (first_block + block_stride · ⌊row / 32⌋) + row mod 32, so that the parts of a fused matrix interleave.
 *
 * How: one lane a word of out. What the piece does not hold adds nothing, and out begins as zeros, so pieces may come in any order and overlap;
 * what lies past the source's columns stays zero. Grid: (words / 2, tiles of 32 rows, 1).
 */
import { BLOCK_ROWS } from "./formats/layout.ts";
import { kernel } from "./kernel.ts";

/** How elements lie within their words, besides from the low bits up. The index is the kernel's param. */
export const ELEMENT_ORDERS = ["plain", "swapped", "awq"] as const;
/** `swapped`: two in a byte, the first in the high half. `awq`: eight in a word, as 0, 2, 4, 6, 1, 3, 5, 7. */
export type ElementOrder = (typeof ELEMENT_ORDERS)[number];

/** Words of a row that one workgroup writes, for 32 rows. */
export const REPACK_WORDS = 2;

/** The kernel of this file; never part of a step. */
export const repack = kernel({
  name: "repack",
  reads: { source: "u32", order: "u32" },
  writes: { out: "u32" },
  params: {
    bits: "u32",
    element_order: "u32",
    /** Bits of an element to turn over: the sign of signed codes. */
    flip: "u32",
    /** Elements of the piece. */
    count: "u32",
    /** Element of row 0, column 0, counted from the piece's first and modulo 2^32. */
    base: "u32",
    row_tile: "u32",
    row_tile_stride: "u32",
    row_stride: "u32",
    column_tile: "u32",
    column_tile_stride: "u32",
    column_stride: "u32",
    row_first: "u32",
    take: "u32",
    period: "u32",
    /** Rows of the part to write: begin … end-1. */
    row_begin: "u32",
    row_end: "u32",
    first_block: "u32",
    block_stride: "u32",
    /** Columns, or groups, that the source has. */
    columns: "u32",
    /** Whether column c of out is column order[c] of the source. */
    permuted: "u32",
    /** Words of a row of out; the first one to write, and how many. */
    row_words: "u32",
    first_word: "u32",
    words: "u32",
    /** Bits of the planes of a code, the second 0 where there is one; both 0: group parameters. */
    low_plane: "u32",
    high_plane: "u32",
    /** Of group parameters: where the first lies in its row, and how far the next is. */
    first_bit: "u32",
    step_bits: "u32",
    /** Whether the rows of a block share their parameters: then lane r of word w has the one of group 32 w + r, of the block's first row. */
    shared_rows: "u32",
  },
  workgroup: BLOCK_ROWS * REPACK_WORDS,
  code: /* wgsl */ `
fn mask(bits: u32) -> u32 { return 0xffffffffu >> (32u - bits); }
/** The element of column 0. */
fn row_element(t: u32) -> u32 {
  return params.base + (t / params.row_tile) * params.row_tile_stride + (t % params.row_tile) * params.row_stride;
}
/** How far a column's element is from that of column 0: software adapters divide slowly, and most tensors need no division. */
fn column_offset(column: u32) -> u32 {
  if (params.column_tile == 1u) { return column * params.column_tile_stride; }
  let tile = column / params.column_tile;
  return tile * params.column_tile_stride + (column - tile * params.column_tile) * params.column_stride;
}
/** The element of column c of out in the row whose column 0 is element at_row, or 0 where the piece does not hold it. */
fn value(at_row: u32, c: u32) -> u32 {
  if (c >= params.columns) { return 0u; }
  var column = c;
  if (params.permuted == 1u) { column = order[c]; }
  var e = at_row + column_offset(column);
  if (e >= params.count) { return 0u; }
  switch (params.element_order) {
    case 1u: { e ^= 1u; }
    case 2u: { e = (e & ~7u) | ((e & 7u) >> 1u) | ((e & 1u) << 2u); }
    default: {}
  }
  // 32 elements take as many words as an element has bits.
  let bit = (e & 31u) * params.bits;
  let at = (e >> 5u) * params.bits + (bit >> 5u);
  let shift = bit & 31u;
  var word = source[at] >> shift;
  if (shift + params.bits > 32u) { word |= source[at + 1u] << (32u - shift); }
  return (word & mask(params.bits)) ^ params.flip;
}
/** Word w of a run of codes. */
fn plane_word(at_row: u32, run: u32, w: u32) -> u32 {
  var width = params.low_plane;
  var low_bits = 0u;
  var k = w;
  if (w >= width) {
    low_bits = width;
    k = w - width;
    width = params.high_plane;
  }
  var word = 0u;
  if (width >= 16u) {
    let each = 32u / width;
    for (var i = 0u; i < each; i++) { word |= value(at_row, run * 32u + k * each + i) << ((width * i) & 31u); }
  } else {
    // A byte holds 8 / width codes, of columns that are 4 apart.
    let fields = 8u / width;
    for (var i = 0u; i < 4u * fields; i++) {
      let b = i & 3u;
      let f = i >> 2u;
      let code = value(at_row, run * 32u + (k * fields + f) * 4u + b);
      word |= ((code >> low_bits) & mask(width)) << (8u * b + width * f);
    }
  }
  return word;
}
/** Word w of a row of group parameters. */
fn param_word(at_row: u32, w: u32) -> u32 {
  var word = 0u;
  let each = max(32u / params.step_bits, 1u);
  let first = ((w - (params.first_bit >> 5u)) * 32u) / params.step_bits;
  for (var i = 0u; i < each; i++) {
    let bit = params.first_bit + (first + i) * params.step_bits;
    if (bit >> 5u == w) { word |= value(at_row, first + i) << (bit & 31u); }
  }
  return word;
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let r = lane % ${BLOCK_ROWS}u;
  let row = (params.row_begin / ${BLOCK_ROWS}u + wg.y) * ${BLOCK_ROWS}u + r;
  let n = wg.x * ${REPACK_WORDS}u + lane / ${BLOCK_ROWS}u;
  let owner = row - select(0u, r, params.shared_rows == 1u);
  if (n >= params.words || owner < params.row_begin || owner >= params.row_end) { return; }
  let c = params.first_word + n;
  let t = params.row_first + (owner / params.take) * params.period + owner % params.take;
  let at_row = row_element(t);
  let run_words = params.low_plane + params.high_plane;
  var word = 0u;
  if (params.shared_rows == 1u) { word = value(at_row, c * ${BLOCK_ROWS}u + r) << params.first_bit; }
  else if (run_words == 0u) { word = param_word(at_row, c); } else { word = plane_word(at_row, c / run_words, c % run_words); }
  let block = params.first_block + params.block_stride * (row / ${BLOCK_ROWS}u);
  let i = (block * params.row_words + c) * ${BLOCK_ROWS}u + r;
  out[i] |= word;
}`,
});
