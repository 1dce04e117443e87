/** What a matmul reads of an activation: its columns in the matrix's order, and as bytes or halves where the step's precision asks for that. */
import type { Slot } from "../../device/arena.ts";
import type { ActivationShape } from "../../kernels/fragments/activation.ts";
import { dotParams, type MatmulRows, type XFrom } from "../../kernels/fragments/matmul.ts";
import { narrowShape } from "../../kernels/fragments/narrow_activation.ts";
import { narrowParams } from "../../kernels/fragments/narrow_dot.ts";
import { partsOf, split, type Unit } from "../../kernels/fragments/wide.ts";
import { NARROW_RUNS, narrowActivation } from "../../kernels/narrow.ts";
import { narrowOf } from "../../kernels/xFrom.ts";
import type { Matrix, Shard } from "../matrix.ts";
import { type Activation, matmulRows, matmulWay, type Step } from "../step.ts";
import { sortColumns } from "./sortColumns.ts";

/** x as a launch binds it, which kernel takes it, and the params of its inner product. */
export interface Operand {
  readonly slot: Slot;
  readonly from: XFrom;
  /** Rows of x that a launch takes at once. */
  readonly m: MatmulRows;
  readonly params: ReturnType<typeof dotParams>;
  /** Where the norm's squares are. */
  readonly shape: Pick<ActivationShape, "rows" | "stride" | "cols" | "squares">;
  /** Whether sums are stored with it. */
  readonly sums: boolean;
}

/**
 * The operand of a matrix: a dispatch more where it is narrow, whose sums it then has. Where it stays in f32, `prepare` may
 * change it first.
 */
export function operand(
  step: Step,
  matrix: Matrix,
  input: Activation,
  prepare: (step: Step, matrix: Matrix, x: Activation) => Activation = (_step, _matrix, x) => x,
): Operand {
  const sorted = sortColumns(step, matrix, input);
  const narrow = narrowOf(step.precision, matrix.layout);
  if (narrow === null) {
    const x = prepare(step, matrix, sorted);
    const { slot, shape, sums } = x;
    return { slot, ...matmulWay(step.recorder.gpu, shape), params: dotParams(matrix, shape, sums), shape, sums };
  }
  const { slot: x, shape: from } = sorted;
  const shape = narrowShape(from.rows, from.cols, narrow);
  const slot = step.recorder.slot(shape.bytes, narrow);
  const { runs, sums, squares } = shape;
  const params = { quads: from.stride / 4, runs, x_squares: from.squares, sums, squares };
  const grid = [Math.ceil(runs / NARROW_RUNS), from.rows, 1] as const;
  narrowActivation(narrow).launch(step.recorder, { buffers: { x, out: slot }, params, grid }, `to ${narrow}`);
  return {
    slot,
    from: narrow,
    m: matmulRows(step.recorder.gpu, from.rows),
    params: { ...dotParams(matrix, from, true), ...narrowParams(shape) },
    shape: { ...shape, rows: from.rows, stride: from.stride },
    sums: true,
  };
}

/**
 * How a launch walks a row shard: workgroups along x, and params of their split. Parts are the whole matrix's, so that its shards have no part
 * in the order of summation.
 */
export function walk({ from, params }: Operand, matrix: Matrix, { blocks }: Shard, unit: Unit = "block") {
  const units = unit === "pair" ? blocks / 2 : blocks;
  return split(from, params, partsOf(matrix, unit), units, unit);
}
