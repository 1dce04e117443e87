/**
 * Qwen3 with experts: Qwen3, and in picked layers the softmax's best experts, renormalized or not. 6 L + 3 dispatches, 5 in a layer without.
 *
 * Source: transformers, models/qwen3_moe/modeling_qwen3_moe.py.
 */
import { headNorms } from "../blocks.ts";
import { booleanField, type Fields } from "../configChecks.ts";
import { ATTENTION_BIASES, type ConfigRules } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { type MoeConfig, readExperts, readWidth, sparseSteps } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { QWEN_RULES } from "./qwen2.ts";

/** The mixture of Qwen's config classes. */
export function qwenMoe(
  fields: Fields,
  otherwise: {
    readonly inner: number;
    readonly experts: number;
    readonly chosen: number;
    readonly renormalize?: boolean;
  },
): MoeConfig {
  const names = { experts: ["num_experts", "num_local_experts"] };
  const counts = readExperts(fields, names, otherwise);
  const renormalize =
    (booleanField(fields, "norm_topk_prob") ?? otherwise.renormalize) === true ? { least: 1e-30 } : null;
  return {
    routing: { ...counts, score: "softmax", renormalize, scaling: 1, groups: null },
    inner: readWidth(fields, "moe_intermediate_size", otherwise.inner),
    shared: null,
    sparse: sparseSteps(fields),
  };
}

const config: ConfigRules = {
  ...QWEN_RULES,
  num_key_value_heads: 4,
  window: { kind: "picked layers", otherwise: 4096, picks: () => () => true },
  biases: ATTENTION_BIASES,
  extras: (fields) => ({ moe: qwenMoe(fields, { inner: 768, experts: 128, chosen: 8 }) }),
};

/** Qwen3 with experts. */
export const qwen3_moe: Family = {
  config,
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      attention: (self_attn) => ({
        spec: { qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config) },
      }),
      experts: (layer, i) =>
        config.moe?.sparse(i) === true ? mixture(weights, `${layer}.mlp`, config, config.moe) : undefined,
    }),
};
