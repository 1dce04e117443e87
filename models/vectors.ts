/** What goes into the model's f32 buffer, element by element: norms and sinks, taps of convolutions, biases in the order of stored rows. */
import { BLOCK_ROWS, paddedRows } from "../kernels/formats/layout.ts";
import { tensorRow } from "./pieces.ts";
import { type ExpertProjections, type Projection, projectionsOf, type Slice, wholeSlice } from "./projection.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** A vector in the model's f32 buffer of norms, biases and sinks. */
export interface Vector {
  /** In f32s from the buffer's beginning. */
  readonly offset: number;
}

/** A tensor of the checkpoint and where its elements go in the f32 buffer. */
export interface VectorPart {
  readonly tensor: CheckpointTensor;
  readonly count: number;
  /** Element `from(i)` of the tensor, plus `add`, goes to `at(i)`. */
  from(index: number): number;
  at(index: number): number;
  readonly add: number;
}

/** What a vector is besides its name and length. */
export interface VectorOptions {
  /** Added to each element: 1 for Gemma's norms. */
  readonly add?: number;
  readonly slice?: Slice;
  /** Of the tensor, where it has more dimensions than one. */
  readonly shape?: readonly number[];
}

/** A vector's elements as they are planned, before its tensor is claimed. */
export interface PlannedVector {
  readonly name: string;
  readonly length: number;
  /** The tensor's shape. */
  readonly of: readonly number[];
  /** Another shape that it may have, whose elements lie in the same order. */
  readonly also?: readonly number[] | undefined;
  from(index: number): number;
  at(index: number): number;
  readonly add: number;
  /** Whether other vectors have elements of the tensor too. */
  readonly shared: boolean;
}

/** Vectors of one place in the buffer, and the f32s that it takes. */
export interface PlannedVectors {
  readonly parts: readonly PlannedVector[];
  readonly length: number;
}

/** A vector of `length` elements, with zeros behind up to whole blocks. */
export function plainVector(name: string, length: number, { add = 0, slice, shape }: VectorOptions): PlannedVectors {
  const whole = wholeSlice({ rows: length, ...(slice === undefined ? {} : { slice }) });
  const from = (row: number) => tensorRow(whole, row);
  const of = shape ?? [slice?.of ?? length];
  return {
    parts: [{ name, length, of, from, at: (i) => i, add, shared: slice !== undefined }],
    length: paddedRows(length),
  };
}

/** Vectors of one length behind each other without room between, and zeros behind the last up to whole blocks. */
export function joinedVectors(names: readonly string[], length: number): PlannedVectors {
  const parts = names.map((name, part): PlannedVector => {
    const at = (i: number) => part * length + i;
    return { name, length, of: [length], from: (i) => i, at, add: 0, shared: false };
  });
  return { parts, length: paddedRows(names.length * length) };
}

/** The taps of a depthwise convolution: see WeightPlan.convolution. */
export function convolutionTaps(name: string, groups: readonly number[], taps: number, mlx: boolean): PlannedVectors {
  const channels = groups.reduce((sum, count) => sum + count, 0);
  const width = groups.reduce((sum, count) => sum + paddedRows(count), 0);
  let [first, column] = [0, 0];
  const parts = groups.map((count): PlannedVector => {
    const [begin, left] = [first * taps, column];
    first += count;
    column += paddedRows(count);
    const at = (i: number) => (i % taps) * width + left + Math.floor(i / taps);
    const of = [channels, 1, taps];
    const also = mlx ? [channels, taps, 1] : undefined;
    return { name, length: count * taps, of, also, from: (i) => begin + i, at, add: 0, shared: true };
  });
  return { parts, length: taps * width };
}

/** Biases of projections behind each other, each from a whole block on. */
export function stackedBiases(projections: readonly Projection[]): PlannedVectors {
  let row = 0;
  const parts = projections.flatMap((projection) => {
    const first = row;
    row += paddedRows(projection.rows);
    return biasOf(projection, (i) => first + i);
  });
  return { parts, length: row };
}

/** Biases of projections of at most `rows` rows whose blocks alternate. */
export function interleavedBiases(projections: readonly Projection[], rows: number): PlannedVectors {
  const parts = projections.flatMap((it, part) => biasOf(it, (i) => alternate(i, part, projections.length)));
  return { parts, length: projections.length * paddedRows(rows) };
}

/** Biases of a stack of experts of at most `rows` rows each, of which those of one alternate. */
export function expertBiases(experts: readonly ExpertProjections[], rows: number): PlannedVectors {
  let length = 0;
  const parts = experts.flatMap((given) => {
    const before = length;
    const own = interleavedBiases(projectionsOf(given), rows);
    length += own.length;
    return own.parts.map((part) => ({ ...part, at: (i: number) => before + part.at(i) }));
  });
  return { parts, length };
}

/** Element i of part `part` of `parts` whose blocks of 32 alternate. */
const alternate = (i: number, part: number, parts: number): number =>
  (Math.floor(i / BLOCK_ROWS) * parts + part) * BLOCK_ROWS + (i % BLOCK_ROWS);

function biasOf(projection: Projection, at: (index: number) => number): PlannedVector[] {
  const { module, rows, expert, bias = `${module}.bias` } = projection;
  if (bias === null) return [];
  const slice = wholeSlice(projection);
  const of = expert === undefined ? [slice.of] : [expert.of, slice.of / expert.of];
  const shared = projection.slice !== undefined || expert !== undefined;
  return [{ name: bias, length: rows, of, from: (row) => tensorRow(slice, row), at, add: 0, shared }];
}
