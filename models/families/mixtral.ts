/**
 * Mixtral: Mistral with experts in every layer, whose weights are the softmax's over the chosen ones. 6 L + 3 dispatches.
 *
 * Source: transformers, models/mixtral/modeling_mixtral.py.
 */
import { LLAMA_RULES, NO_BIASES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { everyLayerMoe } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** Mixtral 8x7B and 8x22B. */
export const mixtral: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    window: { kind: "every layer", otherwise: null },
    biases: NO_BIASES,
    rope: { theta: 1_000_000, partial: null },
    extras: (fields) => ({
      moe: everyLayerMoe(fields, { score: "softmax", renormalize: { least: 1e-30 } }, { experts: 8, chosen: 2 }),
    }),
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      experts(layer) {
        if (config.moe === null) return undefined;
        const older = `${layer}.block_sparse_moe`;
        return weights.hasUnder(`${older}.`)
          ? mixture(weights, older, config, config.moe, { names: ["w1", "w3", "w2"] })
          : mixture(weights, `${layer}.mlp`, config, config.moe);
      },
    }),
};
