/**
 * Gemma 3's text model: as Gemma 2, with q and k normed head by head; layers with a window have a rope of their own.
 *
 * 7 L + 3 dispatches; one more for a cap on the logits.
 * Source: transformers, models/gemma3/modeling_gemma3.py.
 */
import { headNorms } from "../blocks.ts";
import type { ModelConfig } from "../config.ts";
import {
  contradiction,
  type Fields,
  field,
  objectField,
  optionalNumber,
  refused,
  unsupported,
} from "../configChecks.ts";
import type { ConfigRules, LayerRopes, RopeContext } from "../configRules.ts";
import type { Family, Model } from "../model.ts";
import type { BlockOptions } from "../preNormDecoder.ts";
import { readRopeOf } from "../ropeConfig.ts";
import { sandwichDecoder } from "../sandwichDecoder.ts";
import type { WeightPlan } from "../weightPlan.ts";
import { GEMMA_NORM, GEMMA_RULES } from "./gemma.ts";
import { GEMMA_NORMS, gemmaExtras } from "./gemma2.ts";

const GLOBAL = { theta: 1_000_000, partial: null };
const LOCAL = { theta: 10_000, partial: null };
const THETA = { above: 1, max: 1e12 };

/** Old: rope_theta and rope_scaling for layers without a window, rope_local_base_freq for the others. New: rope_parameters by layer type. */
function readRopes(fields: Fields, context: RopeContext): LayerRopes {
  const parameters = objectField(fields, "rope_parameters");
  const [global, local] = ["full_attention", "sliding_attention"].map((type) =>
    parameters === undefined ? undefined : objectField(parameters, type),
  );
  if (
    parameters !== undefined &&
    global === undefined &&
    local === undefined &&
    Object.keys(parameters.values).length > 0
  )
    throw refused(fields, "rope_parameters", "an entry for full_attention and one for sliding_attention");
  const scaling = objectField(fields, "rope_scaling");
  const written = [global, scaling].flatMap((it) => it ?? []);
  const base = optionalNumber(fields, "rope_local_base_freq", THETA);
  const inside = local === undefined ? undefined : field(local, "rope_theta");
  if (local !== undefined && base !== undefined && inside !== undefined && inside !== base)
    throw contradiction(fields, "rope_local_base_freq", "rope_parameters");
  const rules = { ...LOCAL, theta: base ?? LOCAL.theta };
  const top = { ...fields, values: {} }; // what the top of the file says is of layers without a window
  const ropes = [
    readRopeOf(fields, written, { ...context, rules: GLOBAL }),
    readRopeOf(top, local === undefined ? [] : [local], { ...context, rules }),
  ];
  return { ropes, layerRopes: context.windows.map((window) => (window === null ? 0 : 1)) };
}

/** Gemma 3's config. */
export const GEMMA3_RULES: ConfigRules = {
  ...GEMMA_RULES,
  // What published configs of Gemma 3 leave out.
  sizes: { num_attention_heads: 8, vocab_size: 262_208 },
  max_position_embeddings: 131_072,
  num_key_value_heads: 4,
  activation: { key: "hidden_activation", otherwise: "gelu_pytorch_tanh" },
  window: { kind: "pattern", otherwise: 4096, pattern: 6, key: "sliding_window_pattern" },
  ropes: readRopes,
  extras(fields, shape) {
    // The config class has the field and the model does not read it: other engines may.
    if (field(fields, "attn_logit_softcapping") !== undefined)
      throw unsupported(fields, "attn_logit_softcapping", "null");
    return gemmaExtras(fields, shape, null);
  },
};

/** Gemma 3, text. */
export const gemma3_text: Family = { config: GEMMA3_RULES, build: (weights, config) => gemma3Decoder(weights, config) };

/** Gemma 3's decoder, alone or within a model that sees images. */
export function gemma3Decoder(weights: WeightPlan, config: ModelConfig, within?: BlockOptions["within"]): Model {
  return sandwichDecoder(weights, config, GEMMA_NORMS, {
    norm: GEMMA_NORM,
    attention: (self_attn) => ({
      spec: { qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config, GEMMA_NORM.add) },
    }),
    ...(within === undefined ? {} : { within }),
  });
}
