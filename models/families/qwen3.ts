/**
 * Qwen3: Llama with q and k normed head by head, and a sliding window in picked layers. 5 L + 3 dispatches.
 *
 * Source: transformers, models/qwen3/modeling_qwen3.py.
 */
import { headNorms } from "../blocks.ts";
import { ATTENTION_BIASES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { QWEN_RULES } from "./qwen2.ts";

/** Qwen3, dense. */
export const qwen3: Family = {
  config: { ...QWEN_RULES, head_dim: 128, biases: ATTENTION_BIASES },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      attention: (self_attn) => ({
        spec: { qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config) },
      }),
    }),
};
