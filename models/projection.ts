/** Projections: which rows and columns of which module's tensor, and in which form the checkpoint has them. */
import { BLOCK_ROWS, paddedRows } from "../kernels/formats/layout.ts";
import type { ColumnSlice } from "./columnSlice.ts";
import type { RowSlice } from "./matrix.ts";

/** Rows of a tensor that is not a projection's alone: see RowSlice. `take` and `period` are left out where the rows follow each other. */
export interface Slice {
  readonly first: number;
  readonly take?: number;
  readonly period?: number;
  readonly of: number;
}

/** A projection: which module's rows, and in which form the checkpoint has them. */
export interface Projection {
  /** Module path: tensors are `${module}.weight` and whatever its format adds. */
  readonly module: string;
  readonly rows: number;
  /** The projection's rows among those of the tensor, where it has more. Several projections may take from one tensor. */
  readonly slice?: Slice;
  /** The projection's columns among those of the tensor, where it has more. */
  readonly columns?: ColumnSlice;
  /** Whether the plain tensor is (inputs, outputs), or the quantized one too. */
  readonly transposed?: true | "quantized too";
  /** Which expert's, where the tensor has all experts in its first dimension; `slice` then counts inside one expert. */
  readonly expert?: { readonly index: number; readonly of: number };
  /** Names of the plain tensor and of the bias, where they are not `${module}.weight` and `${module}.bias`. */
  readonly weight?: string;
  /** null: it has none where those beside it have one. */
  readonly bias?: string | null;
}

/** One projection, or gate and up, which alternate by blocks. */
export type ExpertProjections = Projection | readonly [gate: Projection, up: Projection];

/** Them as a list. */
export const projectionsOf = (given: ExpertProjections): readonly Projection[] => (isPair(given) ? given : [given]);

const isPair = (given: ExpertProjections): given is readonly [Projection, Projection] => Array.isArray(given);

/** A module's rows as a projection, or the projection itself. */
export const asProjection = (given: string | Projection, rows: number): Projection =>
  typeof given === "string" ? { module: given, rows } : given;

/** What tells projections of one module apart. */
export const projectionKey = ({ module, slice, expert }: Projection): string => JSON.stringify([module, slice, expert]);

/** Blocks of 32 stored rows that rows take. */
export const blocksOf = (rows: number): number => paddedRows(rows) / BLOCK_ROWS;

/** Rows of the whole tensor, of all experts where it has all. */
export function wholeSlice({ rows, slice, expert }: Pick<Projection, "rows" | "slice" | "expert">): RowSlice {
  const { first = 0, take = rows, period = take, of = rows } = slice ?? {};
  const last = first + Math.floor((rows - 1) / take) * period + ((rows - 1) % take);
  if (take < 1 || period < take || last >= of) throw new RangeError(`weight plan: rows ${first} to ${last} of ${of}`);
  if (expert === undefined) return { first, take, period, of };
  return { first: first + expert.index * of, take, period, of: of * expert.of };
}

/** Whether each 32 rows of a projection are 32 rows of the tensor from a multiple of 32 on. */
export const wholeBlocks = ({ first, take, period }: RowSlice, rows: number): boolean =>
  [first, ...(take >= rows ? [] : [take, period])].every((size) => size % BLOCK_ROWS === 0);
