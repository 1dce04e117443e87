/** Norm, matmul, bias: the QKV projections and the head. */

import type { Slot } from "../../device/arena.ts";
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { dotParams } from "../../kernels/fragments/matmul.ts";
import { NONE } from "../../kernels/kernel.ts";
import { normMatmul } from "../../kernels/norm_matmul.ts";
import { xFrom } from "../../kernels/xFrom.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, matmulRows, type Normed, type Step } from "../step.ts";
import type { Vector } from "../weightPlan.ts";
import { activateRows } from "./activateRows.ts";
import { normParams } from "./normParams.ts";
import { sortColumns } from "./sortColumns.ts";

/** x with its sums, which affine weights need: a dispatch more where its producer could not leave them. */
function summed(step: Step, { layout }: Matrix, x: Activation): Activation {
  if (x.sums || layouts[layout].scaling !== "affine") return x;
  return activateRows(step, { slot: x.slot, stride: x.shape.stride }, x.shape.cols, "linear");
}

/** scale · norm(x) · Wᵀ + bias for matrices of one input, behind each other: f32 (rows, Σ padded rows), and that stride. */
export function project(
  step: Step,
  matrices: readonly Matrix[],
  { z, eps }: Normed,
  options: { readonly bias?: Vector | undefined; readonly scale?: number; readonly label: string },
): { slot: Slot; stride: number } {
  const m = matmulRows(step.recorder.gpu, z.shape.rows);
  const stride = matrices.reduce((sum, { blocks }) => sum + blocks * BLOCK_ROWS, 0);
  const slot = step.recorder.slot(z.shape.rows * stride * 4, options.label);
  let row = 0;
  for (const matrix of matrices) {
    const x = summed(step, matrix, sortColumns(step, matrix, z));
    for (const { words, scales, firstBlock, blocks } of matrix.shards) {
      const first = row + firstBlock * BLOCK_ROWS;
      const params = {
        ...dotParams(matrix, x.shape, x.sums),
        ...normParams(eps, x, options.scale),
        bias: options.bias === undefined ? NONE : options.bias.offset + first,
        delta_stride: NONE,
        out_offset: first / 4,
        out_stride: stride / 4,
      };
      // What is not used is bound to something harmless.
      const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, delta: words, out: slot };
      const grid = [blocks, x.shape.rows / m, 1] as const;
      normMatmul(matrix.layout, m, xFrom(step.recorder.gpu)).launch(
        step.recorder,
        { buffers, params, grid },
        options.label,
      );
    }
    row += matrix.blocks * BLOCK_ROWS;
  }
  return { slot, stride };
}
