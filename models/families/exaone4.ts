/**
 * EXAONE 4: norms behind attention and MLP only, q and k normed head by head; where some layers slide, the others have no rope.
 *
 * 7 L + 3 dispatches.
 * Source: transformers, models/exaone4/modeling_exaone4.py.
 */
import { headNorms } from "../blocks.ts";
import { field, hasField } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES, NO_BIASES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { readRope } from "../ropeConfig.ts";
import { POST_NORMS, sandwichDecoder } from "../sandwichDecoder.ts";

const rope = { theta: 10_000, partial: null };

const config: ConfigRules = {
  ...LLAMA_RULES,
  num_key_value_heads: 32,
  norm: { key: "rms_norm_eps", eps: 1e-5 },
  bosTokenIds: [0],
  eosTokenIds: [2],
  window: { kind: "pattern", otherwise: 4096, pattern: 4, key: "sliding_window_pattern" },
  biases: NO_BIASES,
  rope,
  ropes(fields, context) {
    // A window that is written as null makes a model without windows, whose layers all have rope; left out, it is the default.
    const hybrid = !hasField(fields, "sliding_window") || field(fields, "sliding_window") !== undefined;
    const layerRopes = context.windows.map((window) => (hybrid && window === null ? null : 0));
    return { ropes: [readRope(fields, { ...context, rules: rope })], layerRopes };
  },
};

/** EXAONE 4. */
export const exaone4: Family = {
  config,
  build: (weights, config) =>
    sandwichDecoder(weights, config, POST_NORMS, {
      attention: (self_attn) => ({
        spec: { qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config) },
      }),
    }),
};
