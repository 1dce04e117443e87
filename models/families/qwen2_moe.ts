/**
 * Qwen1.5 and Qwen2 with experts: Qwen2, and in picked layers the softmax's best experts and a shared one with a gate. 6 L + 3 dispatches,
 * 5 in a layer without.
 *
 * Source: transformers, models/qwen2_moe/modeling_qwen2_moe.py.
 */
import { type Fields, optionalInteger } from "../configChecks.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { readWidth } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { QWEN_RULES } from "./qwen2.ts";
import { qwenMoe } from "./qwen3_moe.ts";

/** Every other layer below `max_window_layers`. */
function everyOther(fields: Fields): (layer: number) => boolean {
  const below = optionalInteger(fields, "max_window_layers", { min: 0, max: 2 ** 10 }) ?? 28; // the class's default
  return (layer) => layer % 2 === 0 && layer < below;
}

/** Qwen1.5-MoE and Qwen2-57B-A14B. */
export const qwen2_moe: Family = {
  config: {
    ...QWEN_RULES,
    num_key_value_heads: 16,
    window: { kind: "picked layers", otherwise: 4096, picks: everyOther },
    biases: { qkv: { key: "qkv_bias", otherwise: true }, o: false, mlp: false },
    extras: (fields) => ({
      moe: {
        ...qwenMoe(fields, { inner: 1408, experts: 60, chosen: 4 }),
        shared: { inner: readWidth(fields, "shared_expert_intermediate_size", 5632), gated: true },
      },
    }),
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      experts: (layer, i) =>
        config.moe?.sparse(i) === true
          ? mixture(weights, `${layer}.mlp`, config, config.moe, { shared: "shared_expert" })
          : undefined,
    }),
};
