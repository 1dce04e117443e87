/**
 * GLM-4.5: experts by sigmoid and a correction of the choice, beside shared ones; rope on half a head. 6 L + 3 dispatches, 5 in the first layers.
 *
 * Source: transformers, models/glm4_moe/modeling_glm4_moe.py.
 */
import { headNorms } from "../blocks.ts";
import { booleanField } from "../configChecks.ts";
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { sigmoidMoe } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** GLM-4.5, GLM-4.5-Air and GLM-4.6. */
export const glm4_moe: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    bosTokenIds: [],
    eosTokenIds: [],
    biases: { qkv: { key: "attention_bias", otherwise: false }, o: false, mlp: false },
    rope: { theta: 10_000, partial: 0.5 },
    extras: (fields) => ({
      qkNorm: booleanField(fields, "use_qk_norm") ?? false,
      moe: sigmoidMoe(fields, { inner: 1408, experts: 128, dense: 1, scaling: 1, groups: 1, bestGroups: 1 }),
    }),
  },
  build(weights, config) {
    const model = preNormDecoder(weights, config, {
      attention: (self_attn) =>
        config.qkNorm
          ? { spec: { qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config) } }
          : {},
      experts(layer, i) {
        const { moe } = config;
        if (moe?.sparse(i) !== true) return undefined;
        const path = `${layer}.mlp`;
        const correction = weights.vector(`${path}.gate.e_score_correction_bias`, moe.routing.experts);
        return mixture(weights, path, config, moe, { shared: "shared_experts", correction });
      },
    });
    return { ...model, unused: layersFrom(config.num_hidden_layers) };
  },
};

/** Layers behind the last one, which predict more than one token: transformers lets them lie too. */
export function layersFrom(count: number): RegExp {
  const numbers = Array.from({ length: 8 }, (_, i) => count + i).join("|"); // one is published
  return new RegExp(`^model\\.layers\\.(${numbers})\\.`);
}
