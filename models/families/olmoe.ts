/**
 * OLMoE: experts in every layer, by the softmax's best, not renormalized; q and k each normed whole, q, k and v clamped. 7 L + 3 dispatches.
 *
 * Source: transformers, models/olmoe/modeling_olmoe.py.
 */
import { booleanField, optionalNumber } from "../configChecks.ts";
import { ATTENTION_BIASES, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { everyLayerMoe } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** OLMoE 1B-7B. */
export const olmoe: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 4096,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    bosTokenIds: [],
    eosTokenIds: [50_279],
    biases: ATTENTION_BIASES,
    extras: (fields) => ({
      attentionClip: optionalNumber(fields, "clip_qkv", { above: 0, max: 1e9 }) ?? null,
      moe: everyLayerMoe(
        fields,
        {
          score: "softmax",
          renormalize: booleanField(fields, "norm_topk_prob") === true ? { least: 1e-30 } : null,
        },
        { experts: 64, chosen: 8, inner: 2048 },
      ),
    }),
  },
  build(weights, config) {
    const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim, normEps: eps, attentionClip } = config;
    return preNormDecoder(weights, config, {
      attention(self_attn) {
        const q = weights.vector(`${self_attn}.q_norm.weight`, heads * head_dim);
        const k = weights.vector(`${self_attn}.k_norm.weight`, kvHeads * head_dim);
        const clip = attentionClip === null ? {} : { clip: attentionClip };
        return { spec: { qkNorm: { over: "projection", q, k, eps }, ...clip } };
      },
      experts: (layer) => (config.moe === null ? undefined : mixture(weights, `${layer}.mlp`, config, config.moe)),
    });
  },
};
