/**
 * SmolLM3: Llama with layers that have no rope. 5 L + 3 dispatches.
 *
 * Source: transformers, models/smollm3/modeling_smollm3.py.
 */
import { type Fields, field, listField, optionalInteger, refused } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { readRope } from "../ropeConfig.ts";

const rope = { theta: 2_000_000, partial: null };

/** Which layers have rope: `no_rope_layers` says 1 for those that do; left out, each `no_rope_layer_interval`-th does not. */
function ropedLayers(fields: Fields, layers: number): (layer: number) => boolean {
  const interval = optionalInteger(fields, "no_rope_layer_interval", { min: 1, max: 2 ** 10 }) ?? 4; // the class's default
  if (field(fields, "no_rope_layers") === undefined) return (layer) => (layer + 1) % interval !== 0;
  const list = listField(fields, "no_rope_layers") ?? [];
  if (list.length < layers || list.some((has) => ![0, 1, true, false].includes(has as number)))
    throw refused(fields, "no_rope_layers", `0 or 1 for each of ${layers} layers`);
  return (layer) => list[layer] === 1 || list[layer] === true;
}

const config: ConfigRules = {
  ...LLAMA_RULES,
  max_position_embeddings: 32_768,
  num_key_value_heads: 4,
  tied: true,
  bosTokenIds: [128_000],
  eosTokenIds: [128_001],
  window: {
    kind: "picked layers",
    otherwise: null,
    picks(fields, layers) {
      const roped = ropedLayers(fields, layers);
      return (layer) => !roped(layer);
    },
  },
  rope,
  ropes(fields, context) {
    const roped = ropedLayers(fields, context.num_hidden_layers);
    const layers = Array.from({ length: context.num_hidden_layers }, (_, layer) => (roped(layer) ? 0 : null));
    return { ropes: [readRope(fields, { ...context, rules: rope })], layerRopes: layers };
  },
};

/** SmolLM3. */
export const smollm3: Family = { config, build: (weights, config) => preNormDecoder(weights, config) };
