/** Params of a norm folded into the matmul behind it. */
import { NONE } from "../../kernels/kernel.ts";
import type { Activation } from "../step.ts";

/** A norm whose factor is applied behind the sum: x already carries its weight. */
export function normParams(eps: number | null, { shape }: Activation) {
  return { x_squares: eps === null ? NONE : shape.squares, hidden_size: shape.cols, eps: eps ?? 0 };
}
