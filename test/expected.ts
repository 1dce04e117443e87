/** What a reference implementation computed for a fixture, and how far ours is from it. */
import { openFile } from "../device/nodeFiles.ts";
import type { Engine } from "../engine/engine.ts";
import { openWeights } from "../models/weights/checkpoint.ts";

/** A tensor of expected.safetensors: values in row order. */
export interface Expected {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
  /** Values of the row at these indices: of (S, T, V), `row(s, t)` is V values. */
  row(...indices: readonly number[]): readonly number[];
}

/** Reads expected.safetensors of a folder. */
export async function readExpected(folder: URL): Promise<ReadonlyMap<string, Expected>> {
  const checkpoint = await openWeights(await openFile(new URL("expected.safetensors", folder).pathname));
  try {
    const tensors = new Map<string, Expected>();
    for (const { name, dtype, shape } of checkpoint.tensors.values()) {
      const bytes = await checkpoint.read(name);
      const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
      const values = dtype === "I32" ? new Int32Array(buffer) : new Float32Array(buffer);
      tensors.set(name, { shape, values, row: (...indices) => rowOf(shape, values, indices) });
    }
    return tensors;
  } finally {
    await checkpoint.close();
  }
}

function rowOf(shape: readonly number[], values: Float32Array | Int32Array, indices: readonly number[]): number[] {
  const length = shape.slice(indices.length).reduce((a, b) => a * b, 1);
  const row = indices.reduce((at, index, i) => at * (shape[i] ?? Number.NaN) + index, 0);
  return Array.from(values.subarray(row * length, (row + 1) * length));
}

/** log-softmax in float64. */
export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(logits);
  const best = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = values.reduce((total, value) => total + Math.exp(value - best), 0);
  return values.map((value) => value - best - Math.log(sum));
}

/** Logits at every position of one pass. */
export async function logitsOf(engine: Engine, tokens: readonly number[]): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  await engine.score({ tokens, onLogits: (_, logits) => rows.push(logits) });
  return rows;
}

/** Largest and mean distance of log-probabilities over all positions and the whole vocabulary; NaN poisons both. */
export function distance(got: readonly ArrayLike<number>[], want: readonly ArrayLike<number>[]) {
  let [max, sum, count] = [0, 0, 0];
  if (got.length !== want.length) return { max: Number.NaN, mean: Number.NaN };
  for (const [i, logits] of want.entries()) {
    const [is, should] = [logSoftmax(got[i] ?? []), logSoftmax(logits)];
    for (let v = 0; v < should.length; v++) {
      const off = Math.abs((is[v] ?? Number.NaN) - (should[v] ?? Number.NaN));
      max = off > max || Number.isNaN(off) ? off : max;
      sum += off;
      count++;
    }
  }
  return { max, mean: sum / count };
}
