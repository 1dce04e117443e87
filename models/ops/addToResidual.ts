/** Matmul added to the residual stream: o_proj and down_proj. */

import { layouts } from "../../kernels/formats/layouts.ts";
import { NONE } from "../../kernels/kernel.ts";
import { launchRows } from "../../kernels/launchRows.ts";
import { matmulResidual } from "../../kernels/matmul_residual.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, type Norm, newActivation, type Residual, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { throughNorm } from "./norm.ts";
import { operand, walk } from "./operand.ts";

/** y += x · Wᵀ + bias in place, and what the matmul behind the next norm reads. */
export function addToResidual(
  step: Step,
  { matrix, bias, label }: { readonly matrix: Matrix; readonly bias: Vector | undefined; readonly label: string },
  input: Activation,
  residual: Residual,
  next: Norm | null,
): Residual {
  const x = operand(step, matrix, input);
  const fused = next?.kind === "rms" ? next : null;
  const z = newActivation(step, step.rows, residual.z.shape.cols, "z");
  for (const shard of matrix.shards) {
    const { words, scales, firstBlock } = shard;
    const { workgroups, params: split } = walk(x, matrix, shard);
    const params = {
      ...x.params,
      ...split,
      bias: bias?.offset ?? NONE,
      norm_weight: fused?.weight.offset ?? NONE,
      delta_stride: NONE,
      first_block: firstBlock,
      y_stride: z.shape.stride / 4,
      y_runs: z.shape.runs,
      z_sums: z.shape.sums,
      z_squares: z.shape.squares,
    };
    const buffers = {
      words,
      scales: scales ?? words,
      x: x.slot,
      aux: step.aux,
      delta: words,
      y: residual.y,
      z: z.slot,
    };
    const grid = [workgroups, z.shape.rows / x.m, 1] as const;
    const ownSums = layouts[matrix.layout].scaling === "affine" && !x.sums;
    const kernel = matmulResidual(matrix.layout, x.m, ownSums, x.from);
    launchRows(kernel, step.recorder, { buffers, params, grid }, x.shape, label);
  }
  return throughNorm(step, { y: residual.y, z, eps: fused?.eps ?? null }, next);
}
