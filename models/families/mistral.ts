/**
 * Mistral: Llama with a sliding window in every layer. 5 L + 3 dispatches.
 *
 * Source: transformers, models/mistral/modeling_mistral.py.
 */
import { LLAMA_RULES, NO_BIASES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** Mistral. */
export const mistral: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    window: { kind: "every layer", otherwise: 4096 },
    biases: NO_BIASES,
  },
  build: (weights, config) => preNormDecoder(weights, config),
};
