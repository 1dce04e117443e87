/**
 * Granite 3: Llama with multipliers of the embedding, the residual stream, q · k and the logits. 5 L + 3 dispatches.
 *
 * Source: transformers, models/granite/modeling_granite.py.
 */
import { type Fields, optionalNumber } from "../configChecks.ts";
import { type Extras, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

const FACTOR = { above: 0, max: 1e6 }; // published: 0.0078 to 16

/** Granite's four multipliers. */
export function graniteMultipliers(fields: Fields): Partial<Extras> {
  const read = (key: string) => optionalNumber(fields, key, FACTOR) ?? 1; // the class's defaults
  return {
    embeddingMultiplier: read("embedding_multiplier"),
    residualMultiplier: read("residual_multiplier"),
    attentionScale: read("attention_multiplier"),
    logitsScale: 1 / read("logits_scaling"),
  };
}

/** Granite 3. */
export const granite: Family = {
  config: { ...LLAMA_RULES, extras: graniteMultipliers },
  build: (weights, config) => preNormDecoder(weights, config),
};
