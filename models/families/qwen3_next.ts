/**
 * Qwen3-Next: linear attention by the gated delta rule, in picked layers attention with a gate on what comes out; experts as Qwen2's.
 * 6 L + 3 dispatches, one more in a layer of linear attention, one fewer in a layer without experts.
 *
 * Source: transformers, models/qwen3_next/modeling_qwen3_next.py.
 */
import { headNorms } from "../blocks.ts";
import { type Fields, optionalInteger, textField, unsupported } from "../configChecks.ts";
import { ATTENTION_BIASES, type ConfigRules } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { readWidth } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import { gatedDeltaNet } from "../stateBlocks.ts";
import { layersOf, readDeltaNet } from "../stateConfig.ts";
import type { VectorOptions } from "../vectors.ts";
import type { WeightPlan } from "../weightPlan.ts";
import { GEMMA_NORM } from "./gemma.ts";
import { QWEN_RULES } from "./qwen2.ts";
import { qwenMoe } from "./qwen3_moe.ts";

const LINEAR = "linear_attention";

/** The convolution's activation and the norm's gate are silu in one of the class's paths, whatever the config says. */
function refuseOtherActivations(fields: Fields): void {
  const name = textField(fields, "hidden_act") ?? "silu";
  if (name !== "silu" && name !== "swish") throw unsupported(fields, "hidden_act", "silu");
}

const config: ConfigRules = {
  ...QWEN_RULES,
  num_key_value_heads: 2,
  head_dim: 256,
  window: { kind: "none", others: [LINEAR] },
  biases: ATTENTION_BIASES,
  rope: { theta: 10_000, partial: 0.25 },
  extras(fields, { num_hidden_layers: layers }) {
    refuseOtherActivations(fields);
    const interval = optionalInteger(fields, "full_attention_interval", { min: 1, max: 2 ** 10 }) ?? 4;
    const linear = layersOf(fields, LINEAR, layers, (layer) => (layer + 1) % interval !== 0);
    return {
      deltaNet: readDeltaNet(fields, linear),
      moe: {
        ...qwenMoe(fields, { inner: 512, experts: 512, chosen: 10, renormalize: true }),
        shared: { inner: readWidth(fields, "shared_expert_intermediate_size", 512), gated: true },
      },
    };
  },
};

/** MLX's conversion, known by its stacks of experts, has the 1 in the weights of norms. */
function normsOf(weights: WeightPlan, layers: number): VectorOptions {
  const isStacked = (layer: number) => weights.hasUnder(`model.layers.${layer}.mlp.switch_mlp.`);
  return Array.from({ length: layers }, (_, i) => i).some(isStacked) ? {} : GEMMA_NORM;
}

/** Qwen3-Next. */
export const qwen3_next: Family = {
  config,
  build(weights, config) {
    const { deltaNet, moe } = config;
    const norm = normsOf(weights, config.num_hidden_layers);
    return preNormDecoder(weights, config, {
      norm,
      mixer: (layer, i) =>
        deltaNet?.layers[i] === true ? gatedDeltaNet(weights, `${layer}.linear_attn`, i, config, deltaNet) : undefined,
      attention: (self_attn) => ({
        gated: true,
        spec: {
          qkNorm: headNorms(weights, `${self_attn}.q_norm`, `${self_attn}.k_norm`, config, norm.add),
        },
      }),
      experts: (layer, i) =>
        moe?.sparse(i) === true
          ? mixture(weights, `${layer}.mlp`, config, moe, { shared: "shared_expert" })
          : undefined,
    });
  },
};
