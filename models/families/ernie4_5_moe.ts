/**
 * ERNIE 4.5 with experts: ERNIE 4.5, and in a range of layers experts by softmax and a correction of the choice, beside shared ones.
 *
 * 6 L + 3 dispatches, 5 in a layer without experts.
 * Source: transformers, models/ernie4_5_moe/modeling_ernie4_5_moe.py.
 */
import { type Fields, optionalInteger, optionalNumber } from "../configChecks.ts";
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { type MoeConfig, readExperts, readWidth } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

const use_bias = { key: "use_bias", otherwise: false };
const LAYERS = { min: -1, max: 2 ** 10 };

/** Which layers have experts: each `moe_layer_interval`-th one of a range, to the last layer where its end is -1. */
function sparseRange(fields: Fields): (layer: number) => boolean {
  const start = optionalInteger(fields, "moe_layer_start_index", LAYERS) ?? 1;
  const end = optionalInteger(fields, "moe_layer_end_index", LAYERS) ?? -1;
  const interval = optionalInteger(fields, "moe_layer_interval", { min: 1, max: LAYERS.max }) ?? 1;
  return (layer) => (layer + 1) % interval === 0 && layer >= start && (end === -1 || layer <= end);
}

function readMoe(fields: Fields): MoeConfig {
  const names = {
    experts: ["moe_num_experts", "num_experts", "num_local_experts"],
    chosen: ["moe_k", "num_experts_per_tok"],
  };
  const inner = readWidth(fields, "moe_intermediate_size", 1536);
  const shared = optionalInteger(fields, "moe_num_shared_experts", { min: 0, max: 64 }) ?? 2;
  return {
    routing: {
      ...readExperts(fields, names, { experts: 64, chosen: 6 }),
      score: "softmax",
      renormalize: { least: optionalNumber(fields, "moe_norm_min", { min: 0, max: 1 }) ?? 1e-12 },
      scaling: 1,
      groups: null,
    },
    inner,
    shared: shared === 0 ? null : { inner: shared * inner, gated: false },
    sparse: sparseRange(fields),
  };
}

/** ERNIE 4.5 with experts. */
export const ernie4_5_moe: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 4,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    tied: true,
    biases: { qkv: use_bias, o: use_bias, mlp: use_bias },
    rope: { theta: 500_000, partial: null },
    extras: (fields) => ({ moe: readMoe(fields) }),
  },
  build: (weights, config) => ({
    ...preNormDecoder(weights, config, {
      attention: () => ({ spec: { interleaved: true } }),
      headBias: config.biases.mlp,
      experts(layer, i) {
        const { moe } = config;
        if (moe?.sparse(i) !== true) return undefined;
        const path = `${layer}.mlp`;
        const { experts } = moe.routing;
        const name = `${path}.moe_statics.e_score_correction_bias`;
        // MLX's conversion leaves the correction out.
        const left = weights.hasUnder(`${path}.switch_mlp.`) && !weights.has(name);
        const own = left ? {} : { correction: weights.vector(name, experts, { shape: [1, experts] }) };
        return mixture(weights, path, config, moe, {
          shared: "shared_experts",
          sharedBias: config.biases.mlp,
          ...own,
        });
      },
    }),
    unused: /^model\.mtp_/, // what predicts further tokens: transformers lets it lie too
  }),
};
