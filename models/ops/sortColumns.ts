/** The input of a matrix in the order of its columns. */
import { PERMUTE_RUNS, permute } from "../../kernels/permute.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, newActivation, type Step } from "../step.ts";

/** `x` as it is, or with its columns sorted as the matrix's are (act-order): then with sums. */
export function sortColumns(step: Step, matrix: Matrix, x: Activation): Activation {
  if (matrix.order === undefined) return x;
  const order = matrix.orderBuffer;
  if (order === undefined) throw new RangeError(`${matrix.name}: its weights are not loaded`);
  const out = newActivation(step, x.shape.rows, x.shape.cols, "sorted");
  const { cols, stride, runs, sums, squares } = x.shape;
  permute.launch(
    step.recorder,
    {
      buffers: { x: x.slot, order, out: out.slot },
      params: { cols, stride, runs, sums, squares },
      grid: [Math.ceil(runs / PERMUTE_RUNS), x.shape.rows, 1],
    },
    "sort columns",
  );
  return out;
}
