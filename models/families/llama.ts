/**
 * Llama: pre-norm decoder with rope, grouped-query attention and a gated MLP. Also SmolLM2 and TinyLlama.
 *
 * 5 dispatches a layer and 2 around them; the sampler makes 5 L + 3.
 * Source: transformers, models/llama/modeling_llama.py.
 */
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** Llama, and what else has that type. */
export const llama: Family = {
  config: LLAMA_RULES,
  build: (weights, config) => preNormDecoder(weights, config),
};
