/** Blocks that families share, named and nested as in the reference implementations. */
import { HEAD_DIMS } from "../kernels/fragments/batch.ts";
import type { ModelConfig } from "./config.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { Matrix } from "./matrix.ts";
import { addToResidual } from "./ops/addToResidual.ts";
import { attend } from "./ops/attend.ts";
import type { AttentionSpec } from "./ops/attentionSpec.ts";
import { gateUp } from "./ops/gateUp.ts";
import { project } from "./ops/project.ts";
import type { Activation, Norm, Normed, Residual, Step } from "./step.ts";
import type { Projection, Vector, WeightPlan } from "./weightPlan.ts";

/** The last projection of a block: what it gives is added to the residual stream. */
export interface Output {
  readonly matrix: Matrix;
  readonly bias: Vector | undefined;
  readonly label: string;
}

/** A block: what it computes of the normed residual stream, and the projection back. */
export interface Block {
  inner(step: Step, x: Normed): Activation;
  readonly output: Output;
}

/** A layer: the norm that it reads the residual stream through, null: none; and what it adds, up to the norm that follows. */
export interface Layer {
  readonly norm: Norm | null;
  run(step: Step, x: Residual, next: Norm | null): Residual;
}

const MAX_HEAD_DIM = Math.max(...HEAD_DIMS);

/** An RMS norm over the hidden vector. */
export function rmsNorm(weights: WeightPlan, path: string, config: ModelConfig): Norm {
  return { kind: "rms", weight: weights.vector(`${path}.weight`, config.hidden_size), eps: streamEps(config) };
}

/** The eps of a norm of the residual stream, which is kept divided by the residual multiplier: a norm notices by its eps alone. */
const streamEps = ({ normEps, residualMultiplier: m }: ModelConfig): number => normEps / m ** 2;

/** What families' attention differs in; left out: Llama's. */
export interface AttentionOptions {
  /** Modules of q, k and v, in this order, where they are not `q_proj`, `k_proj` and `v_proj`. */
  readonly projections?: readonly Projection[];
  /** The module of the projection back, where it is not `o_proj`. */
  readonly output?: string;
  /** Norms of q and k, and how pairs turn. */
  readonly spec?: Partial<AttentionSpec>;
}

/** Self-attention with the layer's rope, or none: q, k and v in one matmul. */
export function attention(
  weights: WeightPlan,
  path: string,
  layer: number,
  config: ModelConfig,
  options: AttentionOptions = {},
): Block {
  const { hidden_size, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim, biases } = config;
  if (headDim > MAX_HEAD_DIM) {
    throw new UnsupportedModelError(
      `config.json: head_dim is ${headDim}, expected at most ${MAX_HEAD_DIM}, which the attention kernels hold`,
    );
  }
  const projections = options.projections ?? [
    { module: `${path}.q_proj`, rows: heads * headDim },
    { module: `${path}.k_proj`, rows: kvHeads * headDim },
    { module: `${path}.v_proj`, rows: kvHeads * headDim },
  ];
  const qkv_proj = weights.stacked(projections, hidden_size);
  const bias = weights.stackedBias(projections, biases.qkv);
  const rope = config.layerRopes[layer] ?? null;
  const spec: AttentionSpec = {
    layer,
    group: 0,
    heads,
    kvHeads,
    headDim,
    rope: rope ?? 0,
    rotaryDim: rope === null ? 0 : (config.ropes[rope]?.rotary_dim ?? Number.NaN),
    scale: config.attentionScale,
    window: config.windows[layer] ?? null,
    ...(config.attentionSoftcap === null ? {} : { softcap: config.attentionSoftcap }),
    ...options.spec,
  };
  return {
    inner: (step, x) => attend(step, project(step, qkv_proj, x, { bias, label: "qkv_proj" }), spec),
    output: output(weights, `${path}.${options.output ?? "o_proj"}`, config, heads * headDim, biases.o),
  };
}

/** Gated MLP: down(act(gate(x)) · up(x)). */
export function gatedMlp(weights: WeightPlan, path: string, config: ModelConfig): Block {
  const { hidden_size, intermediate_size, biases, hidden_act: activation } = config;
  const [gate, up] = [`${path}.gate_proj`, `${path}.up_proj`];
  const gate_up_proj = weights.interleaved(gate, up, intermediate_size, hidden_size);
  const bias = weights.interleavedBias(gate, up, intermediate_size, biases.mlp);
  return {
    inner: (step, x) => gateUp(step, gate_up_proj, x, { activation, bias, label: "gate_up_proj" }),
    output: output(weights, `${path}.down_proj`, config, intermediate_size, biases.mlp),
  };
}

/** A projection back to the hidden vector. */
export function output(weights: WeightPlan, module: string, config: ModelConfig, cols: number, bias: boolean): Output {
  const rows = config.hidden_size;
  return {
    matrix: weights.matrix(module, rows, cols),
    bias: weights.stackedBias([{ module, rows }], bias),
    label: module.split(".").at(-1) ?? module,
  };
}

/** One block after the other, each behind its norm: x += attention(norm(x)), then x += mlp(norm(x)). 5 dispatches with RMS norms. */
export function sequential(input_layernorm: Norm, attention: Block, post_attention_layernorm: Norm, mlp: Block): Layer {
  return {
    norm: input_layernorm,
    run(step, x, next) {
      const mid = addToResidual(step, attention.output, attention.inner(step, x), x, post_attention_layernorm);
      return addToResidual(step, mlp.output, mlp.inner(step, mid), mid, next);
    },
  };
}
