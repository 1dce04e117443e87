/** Norm, gate and up projections and the activation between them. */
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { type Activation as ActivationName, activationCode } from "../../kernels/fragments/act.ts";
import { dotParams } from "../../kernels/fragments/matmul.ts";
import { NONE } from "../../kernels/kernel.ts";
import { normGateUp } from "../../kernels/norm_gate_up.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, matmulRows, type Normed, newActivation, type Step } from "../step.ts";
import type { Vector } from "../weightPlan.ts";
import { normParams } from "./normParams.ts";

/** act(norm(x) · gateᵀ + bias) · (norm(x) · upᵀ + bias): (rows, intermediate_size). */
export function gateUp(
  step: Step,
  matrix: Matrix,
  { z: x, eps }: Normed,
  options: {
    readonly activation: ActivationName;
    readonly bias?: Vector | undefined;
    readonly label: string;
  },
): Activation {
  const m = matmulRows(step.recorder.gpu, step.rows);
  const out = newActivation(step, step.rows, (matrix.blocks / 2) * BLOCK_ROWS, "mlp");
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      ...dotParams(matrix, x.shape, x.sums),
      ...normParams(eps, x),
      activation: activationCode(options.activation),
      bias: options.bias?.offset ?? NONE,
      delta_stride: NONE,
      first_pair: firstBlock / 2,
      out_stride: out.shape.stride / 4,
      out_runs: out.shape.runs,
      out_sums: out.shape.sums,
    };
    const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, delta: words, out: out.slot };
    const grid = [blocks / 2, out.shape.rows / m, 1] as const;
    normGateUp(matrix.layout, m).launch(step.recorder, { buffers, params, grid }, options.label);
  }
  return out;
}
