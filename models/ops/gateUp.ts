/** Norm, gate and up projections and the activation between them. */
import { ACT_MUL_RUNS, actMul } from "../../kernels/act_mul.ts";
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { type Activation as ActivationName, activationCode } from "../../kernels/fragments/act.ts";
import { NONE } from "../../kernels/kernel.ts";
import { launchRows } from "../../kernels/launchRows.ts";
import { normGateUp } from "../../kernels/norm_gate_up.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, type Normed, newActivation, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { normParams } from "./normParams.ts";
import { operand, walk } from "./operand.ts";
import { project } from "./project.ts";

/** What of a gated projection is not its weights. */
export interface GateUpOptions {
  readonly activation: ActivationName;
  readonly bias?: Vector | undefined;
  readonly label: string;
}

/** act(norm(x) · gateᵀ + bias) · (norm(x) · upᵀ + bias): (rows, intermediate_size). `matrices` are what `interleaved` returned. */
export function gateUp(step: Step, matrices: readonly Matrix[], x: Normed, options: GateUpOptions): Activation {
  const [matrix, up] = matrices;
  if (matrix === undefined) throw new RangeError(`${options.label}: no matrix`);
  return up === undefined ? interleaved(step, matrix, x, options) : apart(step, [matrix, up], x, options);
}

function interleaved(step: Step, matrix: Matrix, { z, eps }: Normed, options: GateUpOptions): Activation {
  const x = operand(step, matrix, z);
  const out = newActivation(step, step.rows, (matrix.blocks / 2) * BLOCK_ROWS, "mlp");
  for (const shard of matrix.shards) {
    const { words, scales, firstBlock } = shard;
    const { workgroups, params: split } = walk(x, matrix, shard, "pair");
    const params = {
      ...x.params,
      ...split,
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
    const grid = [workgroups, out.shape.rows / x.m, 1] as const;
    const kernel = normGateUp(matrix.layout, x.m, x.from);
    launchRows(kernel, step.recorder, { buffers, params, grid }, x.shape, options.label);
  }
  return out;
}

/** Gate and up stored in two ways: a matmul each, and their product. */
function apart(step: Step, pair: readonly [Matrix, Matrix], x: Normed, options: GateUpOptions): Activation {
  const { activation, bias, label } = options;
  const both = project(step, pair, x, { bias, label });
  const width = pair[0].blocks * BLOCK_ROWS;
  const out = newActivation(step, step.rows, width, "mlp");
  const params = {
    activation: activationCode(activation),
    x_stride: both.stride / 4,
    up: width / 4,
    out_stride: out.shape.stride,
    out_runs: out.shape.runs,
    out_sums: out.shape.sums,
  };
  const grid = [Math.ceil(out.shape.runs / ACT_MUL_RUNS), out.shape.rows, 1] as const;
  actMul.launch(step.recorder, { buffers: { x: both.slot, out: out.slot }, params, grid }, label);
  return out;
}
