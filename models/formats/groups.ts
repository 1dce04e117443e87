/** Groups of columns as a checkpoint has them, and as the kernels take them. */
import { BLOCK_COLS, paddedCols } from "../../kernels/formats/layout.ts";
import { UnsupportedModelError } from "../errors.ts";
import type { TensorView } from "../matrix.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { columnMajor, rowMajor } from "./stored.ts";

/** How the groups of a row lie. */
export interface Groups {
  /** Columns that share a parameter in the checkpoint; one group has all of them where that is more than there are. */
  readonly stored: number;
  /** Columns a group on the GPU: whole runs of 32, or a part of one, that divide the stored groups. */
  readonly group: number;
  /** Groups of a row on the GPU. */
  readonly count: number;
  /** Groups of a row in the checkpoint. */
  readonly storedCount: number;
}

/** The greatest number that divides both. */
export const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/** Groups of a row in the checkpoint. */
export const storedGroups = (cols: number, stored: number | undefined): number =>
  stored === undefined ? 1 : Math.max(1, Math.ceil(cols / stored));

/** Whether the kernels have groups for those of a checkpoint: see `groupsOf`. */
export function groupsFit(cols: number, stored: number | undefined, atLeast = BLOCK_COLS): boolean {
  if (stored === undefined || stored >= cols) return true;
  const group = commonGroup(cols, stored);
  return group >= atLeast && group % 8 === 0;
}

const commonGroup = (cols: number, stored: number): number =>
  gcd(stored, stored % BLOCK_COLS === 0 ? paddedCols(cols) : BLOCK_COLS);

/**
 * Groups of `stored` columns (undefined: one for the row) of a row of `cols`. Groups that end inside a run of 32 are split, each part with
 * the same parameters. `atLeast` is the smallest group that the layout's kernels take. Throws UnsupportedModelError for smaller ones, naming the module.
 */
export function groupsOf(module: string, cols: number, stored: number | undefined, atLeast = BLOCK_COLS): Groups {
  if (stored === undefined || stored >= cols)
    return { stored: paddedCols(cols), group: paddedCols(cols), count: 1, storedCount: 1 };
  const group = commonGroup(cols, stored);
  if (!groupsFit(cols, stored, atLeast)) {
    const message = `${module}: groups of ${stored} of ${cols} columns, supported: multiples of ${atLeast}, and one group a row`;
    throw new UnsupportedModelError(message);
  }
  return { stored, group, count: Math.ceil(cols / group), storedCount: Math.ceil(cols / stored) };
}

/** A parameter of (rows, groups), or the same for all rows of a tile of `rowTile`. */
export function groupView(
  tensor: CheckpointTensor,
  bits: number,
  groups: Groups,
  { rowTile = 1, flip = 0 }: { readonly rowTile?: number; readonly flip?: number } = {},
): TensorView {
  return rowMajor(tensor, bits, groups.count, groups.storedCount, {
    rowTile,
    flip,
    columnTile: groups.stored / groups.group,
    outer: { by: "row", span: rowTile, step: groups.storedCount, rows: 0, elements: 0 },
  });
}

/** A parameter of (groups, rows). */
export function groupViewByColumns(
  tensor: CheckpointTensor,
  bits: number,
  groups: Groups,
  rows: number,
  elementOrder: TensorView["elementOrder"] = "plain",
): TensorView {
  const span = groups.stored / groups.group;
  return columnMajor(tensor, bits, groups.count, rows, {
    elementOrder,
    rowTileStride: groups.storedCount * rows,
    columnTile: span,
    columnTileStride: rows,
    outer: { by: "column", span, step: rows, rows, elements: groups.storedCount * rows },
  });
}

/** One parameter for the whole tensor. */
export function singleView(tensor: CheckpointTensor, bits: number, rows: number): TensorView {
  return rowMajor(tensor, bits, 1, 1, {
    rowTile: rows,
    outer: { by: "row", span: rows, step: 1, rows: 0, elements: 0 },
  });
}
