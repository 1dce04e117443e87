/**
 * OLMo 2: norms behind attention and MLP only; q and k each normed whole. 8 L + 3 dispatches.
 *
 * Source: transformers, models/olmo2/modeling_olmo2.py.
 */
import { ATTENTION_BIASES, type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { POST_NORMS, sandwichDecoder } from "../sandwichDecoder.ts";

const config: ConfigRules = {
  ...LLAMA_RULES,
  norm: { key: "rms_norm_eps", eps: 1e-5 },
  bosTokenIds: [],
  eosTokenIds: [50_279],
  biases: ATTENTION_BIASES,
};

/** OLMo 2. */
export const olmo2: Family = {
  config,
  build(weights, config) {
    const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim, normEps: eps } = config;
    return sandwichDecoder(weights, config, POST_NORMS, {
      attention(self_attn) {
        const q = weights.vector(`${self_attn}.q_norm.weight`, heads * head_dim);
        const k = weights.vector(`${self_attn}.k_norm.weight`, kvHeads * head_dim);
        return { spec: { qkNorm: { over: "projection", q, k, eps } } };
      },
    });
  },
};
