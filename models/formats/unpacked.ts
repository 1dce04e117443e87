/**
 * Weights as f32s that are computed while their tensors are read: integers in groups that no layout holds, and experts that are stored in
 * several ways or have their columns sorted by group. They take 32 bits a weight on the GPU.
 *
 *   w[o][i] = scale[o][g] · (q[o][i] − zero[o][g]),   one product in f32
 */
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { derivedF32 } from "./derived.ts";
import { columnMajor, numbersFrom, rowMajor, type StoredModule } from "./stored.ts";

/** A number by its line in the file, a row or a column of the weight, and its place in the line. */
type NumberAt = (line: number, place: number) => number;

/** How the integers of a module lie: lines of them behind each other, which are the weight's rows or its columns. */
export interface IntegerLines {
  /** The tensor that counts as read. */
  readonly from: CheckpointTensor;
  readonly lines: "rows" | "columns";
  readonly rows: number;
  readonly cols: number;
  /** Reads the integers of lines first … end-1. */
  codes(first: number, end: number, signal?: AbortSignal): Promise<NumberAt>;
  /** (groups, rows), or (rows, groups) where the lines are rows. */
  readonly scale: CheckpointTensor;
  /** Reads the zeros, by row and group. */
  zeros(signal?: AbortSignal): Promise<NumberAt>;
  /** The group of each column. */
  readonly groupOf: (column: number) => number;
  /** Of a row. */
  readonly groups: number;
}

/** The module as f32s. */
export function unpackedIntegers(format: string, module: IntegerLines): StoredModule {
  const { from, lines, rows, cols, scale, groupOf, groups } = module;
  const byRow = lines === "rows";
  const length = byRow ? cols : rows;
  const tensor = derivedF32(from, rows * cols, async (first, end, signal) => {
    const scales = await readNumbers(scale, signal);
    const zero = await module.zeros(signal);
    const code = await module.codes(Math.floor(first / length), Math.ceil(end / length), signal);
    return Float32Array.from({ length: end - first }, (_, i) => {
      const [line, place] = [Math.floor((first + i) / length), (first + i) % length];
      const [row, group] = byRow ? [line, groupOf(place)] : [place, groupOf(line)];
      const at = scales.length === 1 ? 0 : byRow ? row * groups + group : group * rows + row;
      return (scales[at] ?? Number.NaN) * (code(line, place) - zero(row, group));
    });
  });
  const codes = byRow ? rowMajor(tensor, 32, cols) : columnMajor(tensor, 32, cols, rows);
  return { ...PLAIN_F32, format: `${format}, as f32`, codes };
}

/** A plain module of 16 bits as f32s. */
export function widened(stored: StoredModule): StoredModule {
  const { tensor } = stored.codes;
  const size = tensor.dtype === "F32" ? 4 : 2;
  const count = (tensor.end - tensor.begin) / size;
  const wide = derivedF32(tensor, count, async (first, end, signal) => {
    const begin = tensor.begin + first * size;
    return await readNumbers({ ...tensor, begin, end: begin + (end - first) * size }, signal);
  });
  return { ...PLAIN_F32, format: `${stored.format}, as f32`, codes: { ...stored.codes, tensor: wide, bits: 32 } };
}

const PLAIN_F32 = { layout: "f32", group: BLOCK_COLS, scaleType: "f16", params: [] } as const;

/** All numbers of a tensor of F32, F16 or BF16. */
async function readNumbers({ dtype, source, begin, end }: CheckpointTensor, signal?: AbortSignal) {
  return numbersFrom(await source.read(begin, end, signal), dtype);
}

/** Words first … end-1 of a tensor of integers of 32 bits. */
export async function readWords(
  { source, begin }: CheckpointTensor,
  first: number,
  end: number,
  signal?: AbortSignal,
): Promise<Uint32Array<ArrayBuffer>> {
  return new Uint32Array((await source.read(begin + 4 * first, begin + 4 * end, signal)).slice().buffer);
}

/** All words of a tensor. */
export const allWords = (tensor: CheckpointTensor, signal?: AbortSignal): Promise<Uint32Array<ArrayBuffer>> =>
  readWords(tensor, 0, (tensor.end - tensor.begin) / 4, signal);

/** `bits` bits from bit `bit` of a stream of words on. */
export function bitsAt(words: Uint32Array, bit: number, bits: number): number {
  const [word, shift] = [Math.floor(bit / 32), bit % 32];
  const low = (words[word] ?? Number.NaN) >>> shift;
  const high = shift + bits > 32 ? (words[word + 1] ?? Number.NaN) << (32 - shift) : 0;
  return (low | high) & (2 ** bits - 1);
}
