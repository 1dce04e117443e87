/**
 * Phi-1 to Phi-2: attention and an MLP without a gate read one LayerNorm; biases everywhere, the head's too; q and k may be normed.
 *
 * 7 L + 4 dispatches.
 *
 * Source: transformers, models/phi/modeling_phi.py.
 */
import { attention, layerNorm, parallel, plainMlp } from "../blocks.ts";
import type { ModelConfig } from "../config.ts";
import { booleanField } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";
import type { HeadNorm } from "../ops/attentionSpec.ts";
import type { WeightPlan } from "../weightPlan.ts";

const config: ConfigRules = {
  ...LLAMA_RULES,
  norm: { key: "layer_norm_eps", eps: 1e-5 },
  activation: { key: "hidden_act", otherwise: "gelu_pytorch_tanh" },
  biases: { qkv: true, o: true, mlp: true },
  rope: { theta: 10_000, partial: 0.5 },
  extras: (fields) => ({ qkNorm: booleanField(fields, "qk_layernorm") ?? false }),
};

/** Phi-1, Phi-1.5 and Phi-2. */
export const phi: Family = {
  config,
  build: (weights, config) =>
    decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        const self_attn = `${path}.self_attn`;
        return parallel(
          layerNorm(weights, `${path}.input_layernorm`, config),
          attention(weights, self_attn, i, config, {
            output: { module: `${self_attn}.dense` },
            ...(config.qkNorm ? { spec: { qkNorm: layerNorms(weights, self_attn, config) } } : {}),
          }),
          plainMlp(weights, config, { module: `${path}.mlp.fc1` }, { module: `${path}.mlp.fc2` }),
        );
      },
      norm: () => layerNorm(weights, "model.final_layernorm", config),
      lm_head: "lm_head",
      lm_head_bias: true,
    }),
};

/** A LayerNorm of each head's query and key, with biases. */
function layerNorms(weights: WeightPlan, self_attn: string, { head_dim, normEps: eps }: ModelConfig): HeadNorm {
  const vector = (name: string) => weights.vector(`${self_attn}.${name}`, head_dim);
  return {
    over: "head",
    kind: "layer",
    q: vector("q_layernorm.weight"),
    qBias: vector("q_layernorm.bias"),
    k: vector("k_layernorm.weight"),
    kBias: vector("k_layernorm.bias"),
    eps,
  };
}
