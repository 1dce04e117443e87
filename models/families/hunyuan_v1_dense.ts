/**
 * Hunyuan without experts: Llama with q and k normed head by head behind rope. 5 L + 3 dispatches.
 *
 * Source: transformers, models/hunyuan_v1_dense/modeling_hunyuan_v1_dense.py.
 */
import { headNorms } from "../blocks.ts";
import { booleanField, optionalInteger, unsupported } from "../configChecks.ts";
import { ATTENTION_BIASES, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** Hunyuan, dense. */
export const hunyuan_v1_dense: Family = {
  config: {
    ...LLAMA_RULES,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    biases: ATTENTION_BIASES,
    rope: { theta: 10_000, partial: null, alpha: true },
    extras(fields) {
      // Published configs state what the model always has: the norms, and one expert.
      if (booleanField(fields, "use_qk_norm") === false) throw unsupported(fields, "use_qk_norm", "true");
      if ((optionalInteger(fields, "num_experts", { min: 0, max: 2 ** 16 }) ?? 1) > 1)
        throw unsupported(fields, "num_experts", "1");
      return {};
    },
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      attention(self_attn) {
        const norms = headNorms(weights, `${self_attn}.query_layernorm`, `${self_attn}.key_layernorm`, config);
        return { spec: { qkNorm: { ...norms, afterRope: true } } };
      },
    }),
};
