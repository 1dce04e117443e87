/**
 * StableLM: a decoder with LayerNorm, rope over a part of each head and a gated MLP, one block after the other or both at once.
 *
 * 7 L + 4 dispatches; 6 L + 4 where attention and MLP read one residual stream.
 * Source: transformers, models/stablelm/modeling_stablelm.py.
 */
import { attention, gatedMlp, layerNorm, parallel, sequential } from "../blocks.ts";
import type { ModelConfig } from "../config.ts";
import { booleanField } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";
import type { HeadNorm } from "../ops/attentionSpec.ts";
import type { WeightPlan } from "../weightPlan.ts";

const config: ConfigRules = {
  ...LLAMA_RULES,
  max_position_embeddings: 4096,
  num_key_value_heads: 32,
  head_dim: "always hidden / heads",
  norm: { key: "layer_norm_eps", eps: 1e-5 },
  bosTokenIds: [0],
  eosTokenIds: [0],
  biases: { qkv: { key: "use_qkv_bias", otherwise: false }, o: false, mlp: false },
  rope: { theta: 10_000, partial: 0.25 },
  extras: (fields) => ({
    qkNorm: booleanField(fields, "qk_layernorm") ?? false,
    parallelResidual: booleanField(fields, "use_parallel_residual") ?? false,
  }),
};

/** StableLM. */
export const stablelm: Family = {
  config,
  build: (weights, config) =>
    decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        const input_layernorm = layerNorm(weights, `${path}.input_layernorm`, config);
        const self_attn = attention(weights, `${path}.self_attn`, i, config, {
          spec: config.qkNorm ? { qkNorm: normsByHead(weights, `${path}.self_attn`, config) } : {},
        });
        const mlp = gatedMlp(weights, `${path}.mlp`, config);
        if (config.parallelResidual) return parallel(input_layernorm, self_attn, mlp);
        return sequential(
          input_layernorm,
          self_attn,
          layerNorm(weights, `${path}.post_attention_layernorm`, config),
          mlp,
        );
      },
      norm: () => layerNorm(weights, "model.norm", config),
      lm_head: "lm_head",
    }),
};

/** A LayerNorm of each head's query and key, a module a head. */
function normsByHead(weights: WeightPlan, self_attn: string, config: ModelConfig): HeadNorm {
  const joined = (module: string, heads: number) => {
    const names = Array.from({ length: heads }, (_, head) => `${self_attn}.${module}.norms.${head}.weight`);
    return weights.joined(names, config.head_dim);
  };
  return {
    over: "head",
    kind: "layer",
    q: joined("q_layernorm", config.num_attention_heads),
    k: joined("k_layernorm", config.num_key_value_heads),
    weightsEachHead: true,
    eps: config.normEps,
  };
}
