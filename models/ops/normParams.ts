/** Params of a norm folded into the matmul behind it. */

import type { ActivationShape } from "../../kernels/fragments/activation.ts";
import { NONE } from "../../kernels/kernel.ts";

/**
 * A norm whose factor is applied behind the sum: x already carries its weight. `scale` is multiplied in: the factor
 * s / √(Σ x² / n + eps) is 1 / √(Σ x² / (n s²) + eps / s²).
 */
export function normParams(
  eps: number | null,
  { shape }: { readonly shape: Pick<ActivationShape, "cols" | "squares"> },
  scale = 1,
) {
  if (eps === null) {
    if (scale !== 1) throw new RangeError(`scale: ${scale} without a norm, expected 1`);
    return { x_squares: NONE, hidden_size: shape.cols, eps: 0 };
  }
  return { x_squares: shape.squares, hidden_size: shape.cols * scale ** 2, eps: eps / scale ** 2 };
}
