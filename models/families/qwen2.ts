/**
 * Qwen2 and Qwen2.5: Llama with biases of q, k and v, and a sliding window in picked layers. 5 L + 3 dispatches.
 *
 * Source: transformers, models/qwen2/modeling_qwen2.py.
 */
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { fromMaxWindowLayers } from "../configWindows.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** What Qwen's config classes have in common. */
export const QWEN_RULES: ConfigRules = {
  ...LLAMA_RULES,
  max_position_embeddings: 32_768,
  num_key_value_heads: 32,
  bosTokenIds: [],
  eosTokenIds: [],
  window: { kind: "picked layers", otherwise: 4096, picks: fromMaxWindowLayers },
};

/** Qwen2 and Qwen2.5. */
export const qwen2: Family = {
  config: { ...QWEN_RULES, biases: { qkv: true, o: false, mlp: false } },
  build: (weights, config) => preNormDecoder(weights, config),
};
