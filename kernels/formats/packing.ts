/** Packs matrices on the CPU into a layout, and reads them back: for tests, small cases and the conversion's reference. */
import { readScale } from "./group_scales.ts";
import { bf16Bits, f16Bits, f32Bits } from "./halves.ts";
import {
  BLOCK_ROWS,
  type Layout,
  type MatrixShape,
  type PackedMatrix,
  scaleCount,
  scaleIndex,
  wordCount,
  wordIndex,
} from "./layout.ts";

/** What one row and column holds: a code, and its group's scale and bias (unused where the layout has none). */
export interface Codes {
  /** The code's bits as the layout stores them in its field of a word. */
  code(row: number, column: number): number;
  scale(row: number, groupIndex: number): { readonly scale: number; readonly bias: number };
}

/** Packs from codes. Inverse of `unpack`. */
export function pack(layout: Layout, shape: MatrixShape, codes: Codes): PackedMatrix {
  const words = new Uint32Array(wordCount(layout, shape.rows, shape.cols));
  const scales = new Uint32Array(scaleCount(layout, shape));
  for (let row = 0; row < shape.rows; row++) {
    for (let column = 0; column < shape.cols; column++) {
      const at = wordIndex(layout, shape.cols, row, column);
      words[at] = (words[at] ?? 0) | (codes.code(row, column) << bitOf(layout, column));
    }
    if (layout.grouped) packScales(shape, row, codes, scales);
  }
  return { words, scales };
}

function packScales(shape: MatrixShape, row: number, codes: Codes, scales: Uint32Array): void {
  for (let g = 0; g < Math.ceil(shape.cols / shape.group); g++) {
    const { scale, bias } = codes.scale(row, g);
    const at = scaleIndex(shape, row, g);
    if (shape.scaleType === "f32") {
      scales[at] = f32Bits(scale);
      scales[at + BLOCK_ROWS] = f32Bits(bias);
    } else {
      const bits = shape.scaleType === "f16" ? f16Bits : bf16Bits;
      scales[at] = bits(scale) | (bits(bias) << 16);
    }
  }
}

/** Lowest bit of a column's field in its word. */
function bitOf(layout: Layout, column: number): number {
  switch (layout.name) {
    case "f32":
      return 0;
    case "f16":
    case "bf16":
      return 16 * (column % 2);
    case "affine8":
      return 8 * (column % 4);
    case "affine4":
      return 8 * (column % 4) + 4 * (Math.floor(column / 4) % 2);
  }
}

/** The code of a value in a layout without groups. */
export function codeOf(layout: Layout, value: number): number {
  if (layout.name === "f16") return f16Bits(value);
  if (layout.name === "bf16") return bf16Bits(value);
  return f32Bits(value);
}

/** Row-major (rows, cols) values, padding left out. */
export function unpack(layout: Layout, shape: MatrixShape, { words, scales }: PackedMatrix): Float64Array {
  const values = new Float64Array(shape.rows * shape.cols);
  for (let row = 0; row < shape.rows; row++) {
    for (let column = 0; column < shape.cols; column++) {
      const q = layout.decode(words[wordIndex(layout, shape.cols, row, column)] ?? Number.NaN, column);
      const { scale, bias } = layout.grouped
        ? readScale(scales, shape, row, Math.floor(column / shape.group))
        : { scale: 1, bias: 0 };
      values[row * shape.cols + column] = scale * q + bias;
    }
  }
  return values;
}
