/** Seeded inputs of kernel cases: activations with their sums, weights in a layout, records of samples, and the same numbers in f64. */
import { f32Bits } from "./formats/halves.ts";
import {
  BLOCK_COLS,
  type Layout,
  type LayoutName,
  type MatrixShape,
  type PackedMatrix,
  paddedCols,
  paddedRows,
  SCALE_TYPES,
  type ScaleType,
  type Zeros,
} from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { codeOf, pack, unpack } from "./formats/packing.ts";
import { type ActivationShape, activationShape } from "./fragments/activation.ts";
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { PURPOSE } from "./fragments/philox.ts";
import { NONE } from "./kernel.ts";
import type { Comparison, Random } from "./testbed.ts";

/** A matrix as stored and its weights in f64, row-major (rows, cols). */
export interface TestMatrix {
  readonly layout: Layout;
  readonly shape: MatrixShape;
  readonly packed: PackedMatrix;
  readonly values: Float64Array;
}

/** A random matrix with weights of about 1/√cols. */
export function randomMatrix(
  random: Random,
  layout: Layout,
  rows: number,
  cols: number,
  group = BLOCK_COLS,
  scaleType: ScaleType = "f16",
  { zeros, sharedRows }: Pick<MatrixShape, "zeros" | "sharedRows"> = {},
): TestMatrix {
  const table = layout.prepare === undefined ? undefined : random.floats(16);
  const shape = {
    rows,
    cols,
    group: layout.scaling !== "none" ? group : BLOCK_COLS,
    scaleType,
    zeros,
    sharedRows,
    table,
  };
  const spread = 1 / Math.sqrt(cols);
  const packed = pack(layout, shape, {
    code: () => randomCode(random, layout, spread),
    scale: () => randomScale(random, layout, scaleType, spread),
    factor: () => spread / 8,
  });
  return { layout, shape, packed, values: unpack(layout, shape, packed) };
}

/** The scale types that a layout is seen with. */
export const scaleChoices = ({ scaling }: Layout): readonly ScaleType[] =>
  scaling === "scale" ? [...SCALE_TYPES, "e8m0", "e4m3"] : SCALE_TYPES;

/** Layout, group, scales and zeros in a title. */
export function scalesTitle(s: {
  readonly layout: LayoutName;
  readonly group: number;
  readonly scaleType: ScaleType;
  readonly zeros?: Zeros | undefined;
  readonly sharedRows?: true | undefined;
}): string {
  if (layouts[s.layout].scaling === "none") return s.layout;
  const zeros = s.zeros === undefined ? "" : `/zeros=${s.zeros.bits}+${s.zeros.add}`;
  return `${s.layout}/${s.group}/${s.scaleType}${zeros}${s.sharedRows ? "/shared" : ""}`;
}

function randomCode(random: Random, layout: Layout, spread: number): number {
  if (layout.scaling === "none") return codeOf(layout, (random.next() * 2 - 1) * spread);
  const code = random.below(2 ** layout.runWords);
  // Exponents of weights around 1; the codes of NaN stand for nothing.
  return layout.name === "e4m3" ? (code & 0x8f) | (0x30 + (code & 0x18)) : code;
}

function randomScale(random: Random, layout: Layout, scaleType: ScaleType, spread: number) {
  if (scaleType === "e8m0") return { scale: 127 + Math.round(Math.log2(spread)) - random.below(3), bias: 0 };
  if (scaleType === "e4m3") return { scale: 1 + random.below(0x48), bias: 0 };
  const levels = layout.scaling === "affine" ? 2 ** layout.runWords : 4;
  const scale = ((0.5 + random.next()) * 2 * spread) / levels;
  return {
    scale,
    bias: (-levels / 2) * scale * (0.8 + 0.4 * random.next()),
    zero: random.below(Math.min(levels, 256)),
  };
}

/** An activation buffer with values, sums in the kernels' own order, and squares: those of `residual` where given. */
export function activation(rows: number, cols: number, values: Float32Array, residual: Float32Array = values) {
  const shape = activationShape(rows, cols);
  const data = new Float32Array(shape.bytes / 4);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < cols; column++) {
      const square = (residual[row * cols + column] ?? Number.NaN) ** 2;
      const run = shape.squares + row * shape.runs + Math.floor(column / BLOCK_COLS);
      data[row * shape.stride + column] = values[row * cols + column] ?? Number.NaN;
      data[run] = (data[run] ?? Number.NaN) + square;
    }
  }
  data.set(fixedSums(data.subarray(0, shape.sums)), shape.sums);
  return { shape, data };
}

/** f32 sums of runs of 32 in the fixed order of fragments/activation.ts: equal to the kernels' bit for bit. */
export function fixedSums(values: Float32Array): Float32Array {
  const { fround } = Math;
  return Float32Array.from({ length: values.length / BLOCK_COLS }, (_, run) => {
    const quad = values.slice(run * BLOCK_COLS, run * BLOCK_COLS + 4);
    for (let i = 4; i < BLOCK_COLS; i++) {
      quad[i % 4] = (quad[i % 4] ?? Number.NaN) + (values[run * BLOCK_COLS + i] ?? Number.NaN);
    }
    const [a = Number.NaN, b = Number.NaN, c = Number.NaN, d = Number.NaN] = quad;
    return fround(fround(a + b) + fround(c + d));
  });
}

/** `count` columns, from column `first` on, of row-major data that begins with (rows, stride). */
export function columns(data: Float32Array, rows: number, stride: number, first: number, count: number): Float32Array {
  const out = new Float32Array(rows * count);
  for (let row = 0; row < rows; row++) {
    out.set(data.subarray(row * stride + first, row * stride + first + count), row * count);
  }
  return out;
}

/** Sums of an activation, or of its squares, by runs of 32: what a producer must leave behind. */
export function runSums(values: ArrayLike<number>, rows: number, cols: number, power = 1): Float64Array {
  const runs = paddedCols(cols) / BLOCK_COLS;
  const sums = new Float64Array(rows * runs);
  for (let i = 0; i < rows * cols; i++) {
    const run = Math.floor(i / cols) * runs + Math.floor((i % cols) / BLOCK_COLS);
    sums[run] = (sums[run] ?? Number.NaN) + (values[i] ?? Number.NaN) ** power;
  }
  return sums;
}

/** Fails unless there are zeros behind each row of an activation: with NaN a zero weight of the next matmul would make NaN. */
export function padding(data: Float32Array, { rows, stride, cols }: ActivationShape): Comparison {
  const width = stride - cols;
  return {
    name: "padding",
    got: columns(data, rows, stride, cols, width),
    want: new Float64Array(rows * width),
    limit: 0,
  };
}

/** Fails unless every f32 that `mine` leaves out still holds the NaN of an output that nothing wrote. */
export function untouched(data: Float32Array, mine: (index: number) => boolean): Comparison {
  const written = data.reduce((count, value, i) => count + (mine(i) || Number.isNaN(value) ? 0 : 1), 0);
  return { name: "words of others that were written", got: [written], want: [0], limit: 0 };
}

/** What a sample asks for; f32s as numbers. */
export type SampleRecord = Readonly<Record<keyof typeof SAMPLE, number>>;

/** Greedy, of row 0, without a target. */
export const PLAIN_SAMPLE: SampleRecord = {
  row: 0,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  seedLow: 0,
  seedHigh: 0,
  choice: 0,
  position: 0,
  target: NONE,
  typicalP: 1,
  rules: NONE,
  purpose: PURPOSE.sample,
  drafted: NONE,
  stops: 0,
  stopCount: 0,
};

/** The records as the batch holds them, behind `lead` words that no kernel of samples may read. */
export function sampleWords(records: readonly SampleRecord[], lead: number): Uint32Array {
  const words = new Uint32Array(lead + records.length * SAMPLE_WORDS).fill(NONE);
  const floats = new Set(["temperature", "topP", "minP", "typicalP"]);
  records.forEach((record, i) => {
    for (const [field, at] of Object.entries(SAMPLE)) {
      const value = record[field as keyof typeof SAMPLE];
      words[lead + i * SAMPLE_WORDS + at] = floats.has(field) ? f32Bits(value) : value;
    }
  });
  return words;
}

/** `values` with zeros behind, up to whole blocks of rows: how aux holds a bias or a norm's weight. */
export function padded(values: ArrayLike<number>, length = paddedRows(values.length)): Float32Array {
  const out = new Float32Array(length);
  for (let i = 0; i < values.length; i++) out[i] = values[i] ?? Number.NaN;
  return out;
}

/** w · x in f64: (rows of x, rows of w). */
export function product(
  w: Float64Array,
  x: ArrayLike<number>,
  rows: number,
  cols: number,
  outputs: number,
): Float64Array {
  const out = new Float64Array(rows * outputs);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < outputs; n++) {
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += (w[n * cols + k] ?? Number.NaN) * (x[m * cols + k] ?? Number.NaN);
      out[m * outputs + n] = sum;
    }
  }
  return out;
}
