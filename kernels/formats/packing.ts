/** Packs matrices on the CPU into a layout, and reads them back: for tests, small cases and the conversion's reference. */
import { fieldsOf } from "./bit_planes.ts";
import { type GroupParams, readScale } from "./group_scales.ts";
import { bf16Bits, f16Bits, f32Bits } from "./halves.ts";
import {
  BLOCK_COLS,
  BLOCK_ROWS,
  groupCount,
  type Layout,
  type MatrixShape,
  type PackedMatrix,
  paramIndex,
  paramPlaces,
  runIndex,
  type ScaleType,
  scaleCount,
  wordCount,
} from "./layout.ts";

/** What one row and column holds: a code, and its group's scale and bias, or zero (unused where the layout has none). */
export interface Codes {
  /** The code's bits as the layout stores them in its field of a word. */
  code(row: number, column: number): number;
  /** `zero` is the stored one, before anything is added to it. */
  scale(row: number, groupIndex: number): { readonly scale: number; readonly bias: number; readonly zero?: number };
  /** The factor of a row's e4m3 scales, which are then the codes themselves. */
  factor?(row: number): number;
}

/** Packs from codes. Inverse of `unpack`. */
export function pack(layout: Layout, shape: MatrixShape, codes: Codes): PackedMatrix {
  const words = new Uint32Array(wordCount(layout, shape.rows, shape.cols));
  const scales = new Uint32Array(scaleCount(layout, shape));
  for (let row = 0; row < shape.rows; row++) {
    for (let column = 0; column < shape.cols; column++) {
      storeCode(layout, words, runIndex(layout, shape.cols, row, column), column, codes.code(row, column));
    }
    if (layout.scaling !== "none") packScales(layout, shape, row, codes, scales);
  }
  return { words, scales };
}

/** The bits of a scale; those of one byte are given as bits. */
const TO_BITS: Readonly<Record<ScaleType, (value: number) => number>> = {
  f16: f16Bits,
  bf16: bf16Bits,
  f32: f32Bits,
  e8m0: (bits) => bits,
  e4m3: (bits) => bits,
};

function packScales(layout: Layout, shape: MatrixShape, row: number, codes: Codes, scales: Uint32Array): void {
  const { scale: at, offset, factor } = paramPlaces(layout, shape);
  const put = (bit: number, bits: number) => {
    const i = paramIndex(layout, shape, row, Math.floor(bit / 32));
    scales[i] = (scales[i] ?? 0) | (bits << (bit % 32));
  };
  if (factor !== undefined) put(factor, f32Bits(codes.factor?.(row) ?? 1));
  const toBits = TO_BITS[shape.scaleType];
  for (let g = 0; g < groupCount(shape); g++) {
    if (shape.sharedRows) {
      if (row % BLOCK_ROWS === 0) scales[paramIndex(layout, shape, row, 0) + g] = f32Bits(codes.scale(row, g).scale);
      continue;
    }
    const { scale, bias, zero } = codes.scale(row, g);
    put(at.first + g * at.step, toBits(scale));
    if (offset !== undefined)
      put(offset.first + g * offset.step, shape.zeros === undefined ? toBits(bias) : (zero ?? 0));
  }
}

/** Writes a code into zeroed words; `run` is where its run begins, `column` any column of the matrix. */
function storeCode(layout: Layout, words: Uint32Array, run: number, column: number, code: number): void {
  for (const { word, bit, bits, from } of fieldsOf(layout.planes, column % BLOCK_COLS)) {
    const at = run + word * BLOCK_ROWS;
    words[at] = (words[at] ?? 0) | (((code >>> from) & mask(bits)) << bit);
  }
}

/** The code that `storeCode` wrote. */
export function loadCode(layout: Layout, words: Uint32Array, run: number, column: number): number {
  let code = 0;
  for (const { word, bit, bits, from } of fieldsOf(layout.planes, column % BLOCK_COLS)) {
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
    let group: GroupParams = { scale: 1, zero: 0, bias: 0 };
    for (let column = 0; column < shape.cols; column++) {
      if (layout.scaling !== "none" && column % shape.group === 0)
        group = readScale(layout, scales, shape, row, column / shape.group);
      const value = layout.value(loadCode(layout, words, runIndex(layout, shape.cols, row, column), column));
      const q = layout.prepare === undefined ? value : (shape.table?.[value] ?? Number.NaN);
      values[row * shape.cols + column] = group.scale * (q - group.zero) + group.bias;
    }
  }
  return values;
}
