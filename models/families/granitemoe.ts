/**
 * Granite 3 with experts: Granite's multipliers, experts whose weights are the softmax over the chosen logits. 6 L + 3 dispatches.
 *
 * Source: transformers, models/granitemoe/modeling_granitemoe.py.
 */
import { ATTENTION_BIASES, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { type ExpertModules, mixture } from "../moe.ts";
import { everyLayerMoe, type MoeConfig } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { graniteMultipliers } from "./granite.ts";

/** Experts as the hub has them: gate and up behind each other in `input_linear`, all experts in one tensor. */
function stacked(path: string, hidden: number, { routing: { experts: of }, inner: rows }: MoeConfig) {
  return (index: number): ExpertModules => {
    const expert = { index, of };
    const [input, output] = [`${path}.input_linear`, `${path}.output_linear`];
    return {
      gate: { module: input, rows, expert, slice: { first: 0, of: 2 * rows } },
      up: { module: input, rows, expert, slice: { first: rows, of: 2 * rows } },
      down: { module: output, rows: hidden, expert },
    };
  };
}

/** Granite 3 with experts. */
export const granitemoe: Family = {
  config: {
    ...LLAMA_RULES,
    biases: ATTENTION_BIASES,
    extras: (fields) => ({
      ...graniteMultipliers(fields),
      moe: everyLayerMoe(fields, { score: "logits", renormalize: null }, { experts: 8, chosen: 2 }),
    }),
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      experts(layer) {
        if (config.moe === null) return undefined;
        const path = `${layer}.block_sparse_moe`;
        const own =
          weights.hasUnder(`${path}.input_linear.`) || weights.hasUnder(`${path}.output_linear.`)
            ? { expert: stacked(path, config.hidden_size, config.moe) }
            : {};
        return mixture(weights, path, config, config.moe, { router: "router.layer", ...own });
      },
    }),
};
