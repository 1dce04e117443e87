/** Blocks that families share, named and nested as in the reference implementations. */
import type { Activation as ActivationName } from "../kernels/fragments/act.ts";
import { HEAD_DIMS } from "../kernels/fragments/batch.ts";
import type { ModelConfig } from "./config.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { Matrix } from "./matrix.ts";
import { addToResidual } from "./ops/addToResidual.ts";
import { attend } from "./ops/attend.ts";
import { gateUp } from "./ops/gateUp.ts";
import { project } from "./ops/project.ts";
import type { Residual, Step } from "./step.ts";
import type { Vector, WeightPlan } from "./weightPlan.ts";

/** A sub-layer: reads the residual stream and adds to it; `norm` is the norm that follows. */
export type Block = (step: Step, x: Residual, norm: Vector) => Residual;

const MAX_HEAD_DIM = Math.max(...HEAD_DIMS);

/** Self-attention with rope: q, k and v in one matmul, o into the residual stream. */
export function attention(weights: WeightPlan, path: string, layer: number, config: ModelConfig): Block {
  const {
    hidden_size,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    attention_bias,
  } = config;
  if (headDim > MAX_HEAD_DIM) {
    throw new UnsupportedModelError(
      `config.json: head_dim is ${headDim}, expected at most ${MAX_HEAD_DIM}, which the attention kernels hold`,
    );
  }
  const projections = [
    { module: `${path}.q_proj`, rows: heads * headDim },
    { module: `${path}.k_proj`, rows: kvHeads * headDim },
    { module: `${path}.v_proj`, rows: kvHeads * headDim },
  ];
  const qkv_proj = weights.stacked(projections, hidden_size);
  const qkv_bias = weights.stackedBias(projections, attention_bias);
  const output = { module: `${path}.o_proj`, rows: hidden_size };
  const o_proj = weights.matrix(output.module, hidden_size, heads * headDim);
  const o_bias = weights.stackedBias([output], attention_bias);
  const spec = {
    layer,
    group: 0,
    heads,
    kvHeads,
    headDim,
    rotaryDim: config.rope.rotary_dim,
    scale: 1 / Math.sqrt(headDim),
    window: config.windows[layer] ?? null,
  };
  return (step, x, norm) => {
    const qkv = project(step, qkv_proj, x.z, { eps: config.rms_norm_eps, bias: qkv_bias, label: "qkv_proj" });
    return addToResidual(step, o_proj, attend(step, qkv, spec), x, { norm, bias: o_bias, label: "o_proj" });
  };
}

/** Gated MLP: down(act(gate(x)) · up(x)) into the residual stream. */
export function gatedMlp(weights: WeightPlan, path: string, config: ModelConfig): Block {
  const { hidden_size, intermediate_size, mlp_bias } = config;
  const activation: ActivationName = config.hidden_act;
  const [gate, up] = [`${path}.gate_proj`, `${path}.up_proj`];
  const gate_up_proj: Matrix = weights.interleaved(gate, up, intermediate_size, hidden_size);
  const gate_up_bias = weights.interleavedBias(gate, up, intermediate_size, mlp_bias);
  const output = { module: `${path}.down_proj`, rows: hidden_size };
  const down_proj = weights.matrix(output.module, hidden_size, intermediate_size);
  const down_bias = weights.stackedBias([output], mlp_bias);
  return (step, x, norm) => {
    const inner = gateUp(step, gate_up_proj, x.z, {
      eps: config.rms_norm_eps,
      activation,
      bias: gate_up_bias,
      label: "gate_up_proj",
    });
    return addToResidual(step, down_proj, inner, x, { norm, bias: down_bias, label: "down_proj" });
  };
}
