/**
 * StarCoder2: a decoder with LayerNorm, rope, a sliding window and an MLP without a gate. 8 L + 4 dispatches.
 *
 * Source: transformers, models/starcoder2/modeling_starcoder2.py.
 */
import { attention, layerNorm, plainMlp, sequential } from "../blocks.ts";
import { LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";

const use_bias = { key: "use_bias", otherwise: true };

/** StarCoder2. */
export const starcoder2: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 4096,
    num_key_value_heads: 2,
    norm: { key: "norm_epsilon", eps: 1e-5 },
    activation: { key: "hidden_act", otherwise: "gelu_pytorch_tanh" },
    tied: true,
    bosTokenIds: [50_256],
    eosTokenIds: [50_256],
    window: { kind: "every layer", otherwise: null },
    biases: { qkv: use_bias, o: use_bias, mlp: use_bias },
  },
  build: (weights, config) =>
    decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        return sequential(
          layerNorm(weights, `${path}.input_layernorm`, config),
          attention(weights, `${path}.self_attn`, i, config),
          layerNorm(weights, `${path}.post_attention_layernorm`, config),
          plainMlp(weights, config, { module: `${path}.mlp.c_fc` }, { module: `${path}.mlp.c_proj` }),
        );
      },
      norm: () => layerNorm(weights, "model.norm", config),
      lm_head: "lm_head",
    }),
};
