/** Narrow activations made on the CPU as the kernel makes them, and what their values stand for. */
import { f16Bits, f16FromBits, roundEven } from "./formats/halves.ts";
import { BLOCK_COLS } from "./formats/layout.ts";
import type { ActivationShape } from "./fragments/activation.ts";
import { EIGHT_WORDS, type Narrow, type NarrowShape, narrowShape } from "./fragments/narrow_activation.ts";
import { EXPONENTS, LEVELS } from "./narrow.ts";

/** A narrow activation as stored. */
export interface NarrowData {
  readonly shape: NarrowShape;
  readonly data: Uint32Array;
}

const { fround } = Math;
const nan = Number.NaN;

/** Where a column of a row lies: the word, and the first bit in it. */
function placeOf(narrow: Narrow, runs: number, row: number, column: number): { word: number; bit: number } {
  const quad = row * runs * 8 + Math.floor(column / 4);
  const [c, words] = [column % 4, EIGHT_WORDS[narrow] / 2];
  // Halves of a quad: columns 0 and 2, then 1 and 3.
  return narrow === "bytes" ? { word: quad, bit: 8 * c } : { word: quad * words + (c % 2), bit: 16 * (c >> 1) };
}

/** The number by which a run is divided, from its greatest value. */
export function scaleOf(narrow: Narrow, top: number): number {
  if (narrow === "bytes") return top < fround(1e-30) ? 0 : fround(top * fround(1 / LEVELS));
  const exponent = (new Uint32Array(Float32Array.of(top).buffer)[0] ?? 0) >>> 23;
  return 2 ** (Math.min(Math.max(exponent, EXPONENTS[0]), EXPONENTS[1]) - 127);
}

/** What narrow.ts makes of an activation whose values are finite. */
export function narrowed(narrow: Narrow, from: ActivationShape, data: Float32Array): NarrowData {
  const shape = narrowShape(from.rows, from.cols, narrow);
  const out = new Uint32Array(shape.bytes / 4);
  const floats = new Float32Array(out.buffer);
  for (let run = 0; run < from.rows * from.runs; run++) {
    const values = data.subarray(run * BLOCK_COLS, (run + 1) * BLOCK_COLS);
    const top = values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    const scale = scaleOf(narrow, top);
    const inverse = scale === 0 ? 0 : narrow === "bytes" ? fround(LEVELS / top) : 1 / scale;
    const stored = Array.from(values, (v) => {
      const x = fround(v * inverse);
      return narrow === "bytes" ? roundEven(x) : f16FromBits(f16Bits(x));
    });
    stored.forEach((v, i) => {
      const { word, bit } = placeOf(narrow, from.runs, Math.floor(run / from.runs), (run % from.runs) * BLOCK_COLS + i);
      const bits = narrow === "bytes" ? v & 255 : f16Bits(v);
      out[word] = ((out[word] ?? 0) | (bits << bit)) >>> 0;
    });
    floats[shape.sums + 2 * run] = scale;
    floats[shape.sums + 2 * run + 1] = scale * fixedSum(stored);
    floats[shape.squares + run] = data[from.squares + run] ?? nan;
  }
  return { shape, data: out };
}

/** A run's sum in f32 in the fixed order; of integers, any order gives the same. */
function fixedSum(values: readonly number[]): number {
  const quad = Float32Array.from(values.slice(0, 4));
  values.slice(4).forEach((v, i) => {
    quad[i % 4] = (quad[i % 4] ?? nan) + v;
  });
  const [a = nan, b = nan, c = nan, d = nan] = quad;
  return fround(fround(a + b) + fround(c + d));
}

/** The integers or halves of a narrow activation, not scaled: (rows, cols). */
export function storedValues(narrow: Narrow, { shape, data }: NarrowData): Float64Array {
  return Float64Array.from({ length: shape.rows * shape.cols }, (_, i) => {
    const { word, bit } = placeOf(narrow, shape.runs, Math.floor(i / shape.cols), i % shape.cols);
    const bits = (data[word] ?? 0) >>> bit;
    return narrow === "bytes" ? ((bits & 255) << 24) >> 24 : f16FromBits(bits & 0xffff);
  });
}

/** Scales and sums of the runs: (rows, runs) each. */
export function pairsOf({ shape, data }: NarrowData): { scales: Float32Array; sums: Float32Array } {
  const floats = new Float32Array(data.buffer, data.byteOffset, data.length).subarray(shape.sums, shape.squares);
  return { scales: floats.filter((_, i) => i % 2 === 0), sums: floats.filter((_, i) => i % 2 === 1) };
}

/** What the values stand for: (rows, cols). */
export function narrowValues(narrow: Narrow, from: NarrowData): Float64Array {
  const { scales } = pairsOf(from);
  const { cols, runs } = from.shape;
  return storedValues(narrow, from).map((v, i) => {
    const run = Math.floor(i / cols) * runs + Math.floor((i % cols) / BLOCK_COLS);
    return v * (scales[run] ?? nan);
  });
}
