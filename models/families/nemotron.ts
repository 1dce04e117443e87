/**
 * Nemotron and Minitron: LayerNorms of 1 + weight, rope over a part of each head, an MLP without a gate and relu². 8 L + 4 dispatches.
 *
 * Source: transformers, models/nemotron/modeling_nemotron.py.
 */
import { attention, layerNorm, plainMlp, sequential } from "../blocks.ts";
import { LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";

/** Nemotron. */
export const nemotron: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 4096,
    norm: { key: "norm_eps", eps: 1e-5 },
    activation: { key: "hidden_act", otherwise: "relu2" },
    bosTokenIds: [2],
    eosTokenIds: [3],
    rope: { theta: 10_000, partial: 0.5 },
  },
  build(weights, config) {
    const norm = (path: string) => layerNorm(weights, path, config, { add: 1 });
    return decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        return sequential(
          norm(`${path}.input_layernorm`),
          attention(weights, `${path}.self_attn`, i, config),
          norm(`${path}.post_attention_layernorm`),
          plainMlp(weights, config, { module: `${path}.mlp.up_proj` }, { module: `${path}.mlp.down_proj` }),
        );
      },
      norm: () => norm("model.norm"),
      lm_head: "lm_head",
    });
  },
};
