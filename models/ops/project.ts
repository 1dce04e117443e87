/** Norm, matmul, bias: the QKV projections and the head. */

import type { Slot } from "../../device/arena.ts";
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { NONE } from "../../kernels/kernel.ts";
import { launchRows } from "../../kernels/launchRows.ts";
import { normMatmul } from "../../kernels/norm_matmul.ts";
import type { Matrix } from "../matrix.ts";
import type { Normed, Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { normParams } from "./normParams.ts";
import { operand, walk } from "./operand.ts";
import { summed } from "./summed.ts";

/** scale · norm(x) · Wᵀ + bias for matrices of one input, behind each other: f32 (rows, Σ padded rows), and that stride. */
export function project(
  step: Step,
  matrices: readonly Matrix[],
  { z, eps }: Normed,
  options: { readonly bias?: Vector | undefined; readonly scale?: number; readonly label: string },
): { slot: Slot; stride: number } {
  const stride = matrices.reduce((sum, { blocks }) => sum + blocks * BLOCK_ROWS, 0);
  const slot = step.recorder.slot(z.shape.rows * stride * 4, options.label);
  let row = 0;
  for (const matrix of matrices) {
    const x = operand(step, matrix, z, summed);
    for (const shard of matrix.shards) {
      const { words, scales, firstBlock } = shard;
      const first = row + firstBlock * BLOCK_ROWS;
      const { workgroups, params: split } = walk(x, matrix, shard);
      const params = {
        ...x.params,
        ...split,
        ...normParams(eps, x, options.scale),
        bias: options.bias === undefined ? NONE : options.bias.offset + first,
        delta_stride: NONE,
        out_offset: first / 4,
        out_stride: stride / 4,
      };
      // What is not used is bound to something harmless.
      const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, delta: words, out: slot };
      const grid = [workgroups, z.shape.rows / x.m, 1] as const;
      const kernel = normMatmul(matrix.layout, x.m, x.from);
      launchRows(kernel, step.recorder, { buffers, params, grid }, x.shape, options.label);
    }
    row += matrix.blocks * BLOCK_ROWS;
  }
  return { slot, stride };
}
