/** Packs matrices on the CPU into a layout, and reads them back: for tests, small cases and the conversion's reference. */
import { readScale } from "./group_scales.ts";
import { bf16Bits, f16Bits, f32Bits } from "./halves.ts";
import {
  BLOCK_COLS,
  BLOCK_ROWS,
  type Layout,
  type MatrixShape,
  type PackedMatrix,
  runIndex,
  scaleCount,
  scaleIndex,
  wordCount,
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
      storeCode(layout, words, runIndex(layout, shape.cols, row, column), column, codes.code(row, column));
    }
    if (layout.scaling !== "none") packScales(shape, row, codes, scales);
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

/** Writes a code into zeroed words; `run` is where its run begins, `column` any column of the matrix. */
export function storeCode(layout: Layout, words: Uint32Array, run: number, column: number, code: number): void {
  for (const { word, bit, bits, from } of layout.fields(column % BLOCK_COLS)) {
    const at = run + word * BLOCK_ROWS;
    words[at] = (words[at] ?? 0) | (((code >>> from) & mask(bits)) << bit);
  }
}

/** The code that `storeCode` wrote. */
export function loadCode(layout: Layout, words: Uint32Array, run: number, column: number): number {
  let code = 0;
  for (const { word, bit, bits, from } of layout.fields(column % BLOCK_COLS)) {
    code |= (((words[run + word * BLOCK_ROWS] ?? 0) >>> bit) & mask(bits)) << from;
  }
  return code >>> 0;
}

const mask = (bits: number): number => 0xffffffff >>> (32 - bits);

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
      const q = layout.value(loadCode(layout, words, runIndex(layout, shape.cols, row, column), column));
      const { scale, bias } =
        layout.scaling !== "none"
          ? readScale(scales, shape, row, Math.floor(column / shape.group))
          : { scale: 1, bias: 0 };
      values[row * shape.cols + column] = scale * q + bias;
    }
  }
  return values;
}
