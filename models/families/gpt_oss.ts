/**
 * gpt-oss: sinks in attention, every other layer with a window, experts with biases and a clamped activation. 6 L + 3 dispatches.
 *
 * Source: transformers, models/gpt_oss/modeling_gpt_oss.py.
 */
import { optionalNumber } from "../configChecks.ts";
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { type ExpertModules, mixture } from "../moe.ts";
import { everyLayerMoe, type MoeConfig } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

const attention_bias = { key: "attention_bias", otherwise: true };
const FACTOR = { above: 0, max: 1e6 };

/** Gate and up by turns in the rows of one tensor of all experts: plain ones (inputs, outputs), MXFP4 (outputs, inputs). */
function byTurns(path: string, hidden: number, { routing: { experts: of }, inner: rows }: MoeConfig) {
  return (index: number): ExpertModules => {
    const form = (name: string) => ({
      module: `${path}.${name}`,
      weight: `${path}.${name}`,
      bias: `${path}.${name}_bias`,
      transposed: true as const,
      expert: { index, of },
    });
    const half = (first: number) => ({ first, take: 1, period: 2, of: 2 * rows });
    return {
      gate: { ...form("gate_up_proj"), rows, slice: half(0) },
      up: { ...form("gate_up_proj"), rows, slice: half(1) },
      down: { ...form("down_proj"), rows: hidden },
    };
  };
}

/** gpt-oss-20b and gpt-oss-120b. */
export const gpt_oss: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    head_dim: 64,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    bosTokenIds: [],
    eosTokenIds: [],
    window: { kind: "pattern", otherwise: 128, pattern: 2 },
    biases: { qkv: attention_bias, o: attention_bias, mlp: false },
    rope: { theta: 150_000, partial: null },
    extras: (fields) => ({
      moe: {
        ...everyLayerMoe(fields, { score: "logits", renormalize: null }, { experts: 128, chosen: 4, inner: 2880 }, [
          "num_experts_per_tok",
          "experts_per_token",
        ]),
        clamped: {
          activation: "clamped swiglu",
          alpha: optionalNumber(fields, "swiglu_alpha", FACTOR) ?? 1.702, // the class's defaults
          limit: optionalNumber(fields, "swiglu_limit", FACTOR) ?? 7,
        },
      },
    }),
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      attention: (self_attn) => ({
        spec: { sinks: weights.vector(`${self_attn}.sinks`, config.num_attention_heads) },
      }),
      experts(layer) {
        const { moe, hidden_size } = config;
        if (moe === null) return undefined;
        const path = `${layer}.mlp`;
        const apart = weights.hasUnder(`${path}.experts.gate_proj.`);
        return mixture(weights, path, config, moe, {
          router: "router",
          routerBias: weights.vector(`${path}.router.bias`, moe.routing.experts),
          bias: true,
          ...(apart ? {} : { expert: byTurns(`${path}.experts`, hidden_size, moe) }),
        });
      },
    }),
};
