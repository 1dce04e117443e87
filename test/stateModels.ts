/** Random checkpoints of the families whose layers keep states, of any shape. */
import { Random } from "../kernels/testbed.ts";
import { floats, type TinyModel } from "./tinyModel.ts";

/** What both families have. */
interface Common {
  readonly seed: number;
  /** One a layer: whether it attends. */
  readonly attends: readonly boolean[];
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocab: number;
  readonly taps: number;
  readonly bias: boolean;
  readonly tied: boolean;
}

/** An LFM2: `bias` is of the convolutions. */
export interface Lfm2Shape extends Common {
  readonly family: "lfm2";
}

/** A Qwen3-Next: `bias` is of attention. */
export interface Qwen3NextShape extends Common {
  readonly family: "qwen3_next";
  readonly keyHeads: number;
  readonly group: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly experts: number;
  readonly chosen: number;
  readonly expertWidth: number;
  readonly sharedWidth: number;
  readonly renormalize: boolean;
  /** Layers without experts, and every how many one has some. */
  readonly plain: readonly number[];
  readonly sparseStep: number;
}
export type StateShape = Lfm2Shape | Qwen3NextShape;

/** Whether a layer of a Qwen3-Next has experts. */
export const hasExperts = ({ plain, sparseStep }: Qwen3NextShape, layer: number): boolean =>
  !plain.includes(layer) && (layer + 1) % sparseStep === 0;

/** Adds tensors to a model. */
class Maker {
  readonly tensors: TinyModel["tensors"] = new Map();
  readonly #random: Random;
  constructor(seed: number) {
    this.#random = new Random(seed);
  }
  tensor(name: string, shape: readonly number[], spread: number, around = 0): void {
    const count = shape.reduce((a, b) => a * b, 1);
    const values = this.#random.floats(count, spread).map((v) => around + v);
    this.tensors.set(name, floats(values, "F32", shape));
  }
  linear(module: string, rows: number, cols: number, bias = false): void {
    this.tensor(`${module}.weight`, [rows, cols], 3 / Math.sqrt(cols));
    if (bias) this.tensor(`${module}.bias`, [rows], 1);
  }
}

/** The checkpoint of a shape: the same one for the same seed. */
export function stateModel(shape: StateShape): TinyModel {
  const make = new Maker(shape.seed);
  make.linear("model.embed_tokens", shape.vocab, shape.hidden);
  shape.attends.forEach((_, layer) => {
    if (shape.family === "lfm2") lfm2Layer(make, shape, layer);
    else qwen3NextLayer(make, shape, layer);
  });
  if (shape.family === "lfm2") make.tensor("model.embedding_norm.weight", [shape.hidden], 0.5, 1);
  else make.tensor("model.norm.weight", [shape.hidden], 0.5);
  if (!shape.tied) make.linear("lm_head", shape.vocab, shape.hidden);
  return { config: shape.family === "lfm2" ? lfm2Config(shape) : qwen3NextConfig(shape), tensors: make.tensors };
}

const commonConfig = ({ hidden, heads, kvHeads, headDim, intermediate, vocab, tied, attends, family }: StateShape) => ({
  model_type: family,
  hidden_size: hidden,
  num_attention_heads: heads,
  num_key_value_heads: kvHeads,
  head_dim: headDim,
  intermediate_size: intermediate,
  vocab_size: vocab,
  num_hidden_layers: attends.length,
  max_position_embeddings: 512,
  tie_word_embeddings: tied,
  rope_theta: 10_000,
});

const lfm2Config = (shape: Lfm2Shape) => ({
  ...commonConfig(shape),
  layer_types: shape.attends.map((attends) => (attends ? "full_attention" : "conv")),
  conv_L_cache: shape.taps,
  conv_bias: shape.bias,
  block_auto_adjust_ff_dim: false,
  norm_eps: 1e-5,
});

function lfm2Layer(make: Maker, shape: Lfm2Shape, layer: number): void {
  const { hidden, heads, kvHeads, headDim, intermediate, taps, bias } = shape;
  const path = `model.layers.${layer}`;
  make.tensor(`${path}.operator_norm.weight`, [hidden], 0.5, 1);
  make.tensor(`${path}.ffn_norm.weight`, [hidden], 0.5, 1);
  if (shape.attends[layer] === true) {
    make.linear(`${path}.self_attn.q_proj`, heads * headDim, hidden);
    make.linear(`${path}.self_attn.k_proj`, kvHeads * headDim, hidden);
    make.linear(`${path}.self_attn.v_proj`, kvHeads * headDim, hidden);
    make.linear(`${path}.self_attn.out_proj`, hidden, heads * headDim);
    make.tensor(`${path}.self_attn.q_layernorm.weight`, [headDim], 0.5, 1);
    make.tensor(`${path}.self_attn.k_layernorm.weight`, [headDim], 0.5, 1);
  } else {
    make.linear(`${path}.conv.in_proj`, 3 * hidden, hidden, bias);
    make.linear(`${path}.conv.out_proj`, hidden, hidden, bias);
    make.tensor(`${path}.conv.conv.weight`, [hidden, 1, taps], 1);
    if (bias) make.tensor(`${path}.conv.conv.bias`, [hidden], 1);
  }
  make.linear(`${path}.feed_forward.w1`, intermediate, hidden);
  make.linear(`${path}.feed_forward.w3`, intermediate, hidden);
  make.linear(`${path}.feed_forward.w2`, hidden, intermediate);
}

const qwen3NextConfig = (shape: Qwen3NextShape) => ({
  ...commonConfig(shape),
  layer_types: shape.attends.map((attends) => (attends ? "full_attention" : "linear_attention")),
  linear_conv_kernel_dim: shape.taps,
  linear_num_key_heads: shape.keyHeads,
  linear_num_value_heads: shape.keyHeads * shape.group,
  linear_key_head_dim: shape.keyDim,
  linear_value_head_dim: shape.valueDim,
  attention_bias: shape.bias,
  partial_rotary_factor: 0.5,
  rms_norm_eps: 1e-6,
  num_experts: shape.experts,
  num_experts_per_tok: shape.chosen,
  norm_topk_prob: shape.renormalize,
  moe_intermediate_size: shape.expertWidth,
  shared_expert_intermediate_size: shape.sharedWidth,
  mlp_only_layers: shape.plain,
  decoder_sparse_step: shape.sparseStep,
});

function qwen3NextLayer(make: Maker, shape: Qwen3NextShape, layer: number): void {
  const { hidden, heads, kvHeads, headDim, intermediate, taps, bias, keyHeads, group, keyDim, valueDim } = shape;
  const path = `model.layers.${layer}`;
  make.tensor(`${path}.input_layernorm.weight`, [hidden], 0.5);
  make.tensor(`${path}.post_attention_layernorm.weight`, [hidden], 0.5);
  if (shape.attends[layer] === true) {
    make.linear(`${path}.self_attn.q_proj`, 2 * heads * headDim, hidden, bias);
    make.linear(`${path}.self_attn.k_proj`, kvHeads * headDim, hidden, bias);
    make.linear(`${path}.self_attn.v_proj`, kvHeads * headDim, hidden, bias);
    make.linear(`${path}.self_attn.o_proj`, hidden, heads * headDim, bias);
    make.tensor(`${path}.self_attn.q_norm.weight`, [headDim], 0.5);
    make.tensor(`${path}.self_attn.k_norm.weight`, [headDim], 0.5);
  } else {
    const [keys, values] = [keyHeads * keyDim, keyHeads * group * valueDim];
    make.linear(`${path}.linear_attn.in_proj_qkvz`, 2 * keys + 2 * values, hidden);
    make.linear(`${path}.linear_attn.in_proj_ba`, 2 * keyHeads * group, hidden);
    make.linear(`${path}.linear_attn.out_proj`, hidden, values);
    make.tensor(`${path}.linear_attn.conv1d.weight`, [2 * keys + values, 1, taps], 1);
    make.tensor(`${path}.linear_attn.A_log`, [keyHeads * group], 1);
    make.tensor(`${path}.linear_attn.dt_bias`, [keyHeads * group], 1);
    make.tensor(`${path}.linear_attn.norm.weight`, [valueDim], 0.5, 1);
  }
  const mlp = (module: string, width: number) => {
    make.linear(`${module}.gate_proj`, width, hidden);
    make.linear(`${module}.up_proj`, width, hidden);
    make.linear(`${module}.down_proj`, hidden, width);
  };
  if (!hasExperts(shape, layer)) {
    mlp(`${path}.mlp`, intermediate);
    return;
  }
  make.linear(`${path}.mlp.gate`, shape.experts, hidden);
  make.linear(`${path}.mlp.shared_expert_gate`, 1, hidden);
  mlp(`${path}.mlp.shared_expert`, shape.sharedWidth);
  for (let e = 0; e < shape.experts; e++) mlp(`${path}.mlp.experts.${e}`, shape.expertWidth);
}
