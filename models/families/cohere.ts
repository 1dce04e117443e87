/**
 * Cohere's Command R: attention and a gated MLP read one LayerNorm without bias; rope turns neighbouring pairs; logits are scaled.
 *
 * 6 L + 4 dispatches; q and k may be normed head by head.
 * Source: transformers, models/cohere/modeling_cohere.py.
 */
import { attention, gatedMlp, layerNorm, parallel } from "../blocks.ts";
import type { ModelConfig } from "../config.ts";
import { booleanField, optionalNumber } from "../configChecks.ts";
import { ATTENTION_BIASES, type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";
import type { HeadNorm } from "../ops/attentionSpec.ts";
import type { WeightPlan } from "../weightPlan.ts";

const config: ConfigRules = {
  ...LLAMA_RULES,
  max_position_embeddings: 8192,
  norm: { key: "layer_norm_eps", eps: 1e-5 },
  tied: true,
  bosTokenIds: [5],
  eosTokenIds: [255_001],
  biases: ATTENTION_BIASES,
  rope: { theta: 500_000, partial: null },
  extras(fields) {
    return {
      logitsScale: optionalNumber(fields, "logit_scale", { above: 0, max: 1e6 }) ?? 0.0625,
      qkNorm: booleanField(fields, "use_qk_norm") ?? false,
    };
  },
};

/** Command R and Aya. */
export const cohere: Family = {
  config,
  build(weights, config) {
    const norm = (path: string) => layerNorm(weights, path, config, { bias: false });
    return decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        const self_attn = `${path}.self_attn`;
        const qkNorm = config.qkNorm ? { qkNorm: layerNormsByHead(weights, self_attn, config) } : {};
        return parallel(
          norm(`${path}.input_layernorm`),
          attention(weights, self_attn, i, config, { spec: { interleaved: true, ...qkNorm } }),
          gatedMlp(weights, `${path}.mlp`, config),
        );
      },
      norm: () => norm("model.norm"),
      lm_head: "lm_head",
    });
  },
};

/** A LayerNorm of each head's query and key, each head with weights of its own. */
function layerNormsByHead(weights: WeightPlan, self_attn: string, config: ModelConfig): HeadNorm {
  const { num_attention_heads, num_key_value_heads, head_dim, normEps: eps } = config;
  const [q, k] = [`${self_attn}.q_norm.weight`, `${self_attn}.k_norm.weight`];
  return {
    over: "head",
    kind: "layer",
    q: weights.vector(q, num_attention_heads * head_dim, { shape: [num_attention_heads, head_dim] }),
    k: weights.vector(k, num_key_value_heads * head_dim, { shape: [num_key_value_heads, head_dim] }),
    weightsEachHead: true,
    eps,
  };
}
