/**
 * Gemma 2: norms of 1 + weight before and behind attention and MLP, caps on scores and logits, every other layer with a window.
 *
 * 7 L + 4 dispatches.
 * Source: transformers, models/gemma2/modeling_gemma2.py.
 */
import { type Fields, hasField, numberField, optionalNumber } from "../configChecks.ts";
import type { ConfigRules, Extras, HeadShape } from "../configRules.ts";
import type { Family } from "../model.ts";
import { type SandwichNames, sandwichDecoder } from "../sandwichDecoder.ts";
import { GEMMA_NORM, GEMMA_RULES, scaledEmbedding } from "./gemma.ts";

/** Gemma's names of the norms around its blocks. */
export const GEMMA_NORMS: SandwichNames = {
  attention: { before: "input_layernorm", after: "post_attention_layernorm" },
  mlp: { before: "pre_feedforward_layernorm", after: "post_feedforward_layernorm" },
};

const CAP = { above: 0, max: 1e6 };

/** A cap, or what holds where none is written; null: none. */
function capOf(fields: Fields, key: string, otherwise: number | null): number | null {
  if (!hasField(fields, key)) return otherwise;
  return fields.values[key] === null ? null : numberField(fields, key, CAP);
}

/** Scales of Gemma 2 and 3, and the cap on logits; `cap`: where none is written. */
export function gemmaExtras(fields: Fields, shape: HeadShape, cap: number | null): Partial<Extras> {
  const scalar = optionalNumber(fields, "query_pre_attn_scalar", { above: 0, max: 1e6 }) ?? 256; // the classes' default
  return {
    ...scaledEmbedding(fields, shape),
    attentionScale: 1 / Math.sqrt(scalar),
    logitsSoftcap: capOf(fields, "final_logit_softcapping", cap),
  };
}

const config: ConfigRules = {
  ...GEMMA_RULES,
  num_key_value_heads: 4,
  activation: { key: "hidden_activation", otherwise: "gelu_pytorch_tanh" },
  window: { kind: "pattern", otherwise: 4096, pattern: 2 },
  extras: (fields, shape) => ({
    ...gemmaExtras(fields, shape, 30),
    attentionSoftcap: capOf(fields, "attn_logit_softcapping", 50),
  }),
};

/** Gemma 2. */
export const gemma2: Family = {
  config,
  build: (weights, config) => sandwichDecoder(weights, config, GEMMA_NORMS, { norm: GEMMA_NORM }),
};
