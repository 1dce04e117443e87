/** Plans whose projections are parts of tensors: slices, tensors with inputs first, stacks of experts. Each weight is its own place in the tensor. */

import { memoryFolder } from "../device/memoryFiles.ts";
import { fieldsOf } from "../models/configChecks.ts";
import type { Matrix } from "../models/matrix.ts";
import type { ExpertProjections } from "../models/projection.ts";
import { normalizeQuantization } from "../models/quantization.ts";
import { WeightPlan } from "../models/weightPlan.ts";
import { openCheckpoint } from "../models/weights/checkpoint.ts";
import { safetensorsFile } from "../models/weights/writeSafetensors.ts";
import { floats } from "./tinyModel.ts";

/** A plan of one matrix, and what the weight of a part's row and column must be. */
export interface SlicedPlan {
  readonly name: string;
  /** Of the tensor "x", whose elements are 0, 1, 2 … */
  readonly shape: readonly number[];
  matrix(plan: WeightPlan): Matrix;
  weight(part: number, row: number, column: number): number;
}

const [cols, headDim] = [40, 24];
/** The rows of q, k and v of each of three heads, side by side as GPT-NeoX has them. */
const heads = (part: number) => ({
  module: "x",
  weight: "x",
  rows: 3 * headDim,
  slice: { first: part * headDim, take: headDim, period: 3 * headDim, of: 9 * headDim },
});
const stacked = (e: number, form: object) => ({ module: "x", weight: "x", expert: { index: e, of: 3 }, ...form });

/** Every way to take a part of a tensor. */
export const slicedPlans: readonly SlicedPlan[] = [
  {
    name: "slices behind each other",
    shape: [100, cols],
    matrix: (plan) => {
      const slice = (first: number, rows: number) => ({ module: "x", weight: "x", rows, slice: { first, of: 100 } });
      return one(plan.stacked([slice(0, 48), slice(48, 20), slice(68, 32)], cols));
    },
    weight: (part, row, column) => (([0, 48, 68][part] ?? Number.NaN) + row) * cols + column,
  },
  {
    name: "slices by heads",
    shape: [9 * headDim, cols],
    matrix: (plan) => one(plan.stacked([heads(0), heads(1), heads(2)], cols)),
    weight: (part, row, column) =>
      (Math.floor(row / headDim) * 3 * headDim + part * headDim + (row % headDim)) * cols + column,
  },
  {
    name: "inputs first",
    shape: [cols, 70],
    matrix: (plan) => plan.matrix("x", 70, cols, { weight: "x", transposed: true }),
    weight: (_, row, column) => column * 70 + row,
  },
  {
    name: "slices of a tensor with inputs first",
    shape: [cols, 90],
    matrix: (plan) => {
      const third = (part: number) => ({
        module: "x",
        weight: "x",
        rows: 30,
        transposed: true as const,
        slice: { first: 30 * part, of: 90 },
      });
      return one(plan.stacked([third(0), third(1), third(2)], cols));
    },
    weight: (part, row, column) => column * 90 + 30 * part + row,
  },
  {
    name: "experts in one tensor",
    shape: [3, 35, cols],
    matrix: (plan) => plan.experts(3, (e) => stacked(e, { rows: 35 }) as ExpertProjections, 35, cols),
    weight: (part, row, column) => (part * 35 + row) * cols + column,
  },
  {
    name: "gate and up of experts behind each other",
    shape: [3, 70, cols],
    matrix: (plan) =>
      plan.experts(
        3,
        (e) =>
          [0, 35].map((first) => stacked(e, { rows: 35, slice: { first, of: 70 } })) as unknown as ExpertProjections,
        35,
        cols,
      ),
    weight: (part, row, column) => (Math.floor(part / 2) * 70 + (part % 2) * 35 + row) * cols + column,
  },
  {
    name: "gate and up of experts by turns, inputs first",
    shape: [3, cols, 70],
    matrix: (plan) =>
      plan.experts(
        3,
        (e) =>
          [0, 1].map((first) =>
            stacked(e, { rows: 35, transposed: true, slice: { first, take: 1, period: 2, of: 70 } }),
          ) as unknown as ExpertProjections,
        35,
        cols,
      ),
    weight: (part, row, column) => (Math.floor(part / 2) * cols + column) * 70 + 2 * row + (part % 2),
  },
];

function one(matrices: readonly Matrix[]): Matrix {
  const [matrix, more] = matrices;
  if (matrix === undefined || more !== undefined) throw new RangeError(`${matrices.length} matrices, expected one`);
  return matrix;
}

/** The plan over a checkpoint of that tensor alone. */
export async function planSliced({ shape, matrix }: SlicedPlan): Promise<{ plan: WeightPlan; matrix: Matrix }> {
  const count = shape.reduce((a, b) => a * b, 1);
  const x = floats(
    Float32Array.from({ length: count }, (_, i) => i),
    "F32",
    shape,
  );
  const file = safetensorsFile(new Map([["x", x]]));
  const checkpoint = await openCheckpoint(memoryFolder({ "model.safetensors": file }));
  const plan = new WeightPlan(checkpoint, normalizeQuantization(fieldsOf("config.json", {})));
  const made = matrix(plan);
  plan.finish();
  return { plan, matrix: made };
}
