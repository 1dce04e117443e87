/**
 * DeepSeek-V2: attention over latents, experts by softmax, from the best of groups where it says so, beside shared ones. 10 L + 3
 * dispatches; 9 in the first layers, and one less where queries are projected at once.
 *
 * Source: transformers, models/deepseek_v2/modeling_deepseek_v2.py.
 */
import { type Fields, optionalInteger, optionalNumber, textField, unsupported } from "../configChecks.ts";
import { ATTENTION_BIASES, type ConfigRules, type HeadShape, LLAMA_RULES } from "../configRules.ts";
import { latentAttention } from "../latentAttention.ts";
import { latentScale, readLatent } from "../latentConfig.ts";
import type { Family } from "../model.ts";
import { mixture } from "../moe.ts";
import { type MoeConfig, readExperts, readGroups, readWidth, sparseEvery } from "../moeConfig.ts";
import { preNormDecoder } from "../preNormDecoder.ts";
import type { WeightPlan } from "../weightPlan.ts";
import { layersFrom } from "./glm4_moe.ts";

const METHODS = ["greedy", "group_limited_greedy"];

/** Refuses a way to score or to choose that the family's class does not have. */
export function checkRouting(fields: Fields, scoring: string, methods: readonly string[]): string {
  const [otherwise = ""] = methods;
  const scored = textField(fields, "scoring_func") ?? scoring;
  if (scored !== scoring) throw unsupported(fields, "scoring_func", scoring);
  const method = textField(fields, "topk_method") ?? otherwise;
  if (!methods.includes(method)) throw unsupported(fields, "topk_method", methods.join(", "));
  return method;
}

/** `norm_topk_prob` is not read: the class has no such step. */
function readMoe(fields: Fields): MoeConfig {
  const method = checkRouting(fields, "softmax", METHODS);
  const counts = readExperts(fields, { experts: ["n_routed_experts", "num_experts"] }, { experts: 64 });
  const inner = readWidth(fields, "moe_intermediate_size", 1407);
  const shared = optionalInteger(fields, "n_shared_experts", { min: 0, max: 64 }) ?? 2;
  return {
    routing: {
      ...counts,
      score: "softmax",
      renormalize: null,
      scaling: optionalNumber(fields, "routed_scaling_factor", { above: 0, max: 1e6 }) ?? 1,
      groups: method === "greedy" ? null : readGroups(fields, counts, { score: "best", count: 1, best: 1 }),
    },
    inner,
    shared: shared === 0 ? null : { inner: shared * inner, gated: false },
    sparse: sparseEvery(fields, 0),
  };
}

/** What DeepSeek's config classes share. */
export const DEEPSEEK_RULES: ConfigRules = {
  ...LLAMA_RULES,
  names: { head_dim: "qk_rope_head_dim" },
  num_key_value_heads: "always heads",
  head_dim: 64,
  biases: ATTENTION_BIASES,
};

/** Attention over latents and its scale. */
export function latentExtras(fields: Fields, { head_dim }: HeadShape, interleaved: boolean) {
  const latent = readLatent(fields, head_dim, interleaved);
  return { latent, attentionScale: latentScale(fields, latent) };
}

/**
 * The model of both families. A layer that the rule leaves without experts has them where the checkpoint has its router: transformers
 * does not read `moe_layer_freq`.
 */
export const deepseek: Family["build"] = (weights, config) => {
  const { latent, moe } = config;
  if (latent === null || moe === null) throw new RangeError(`${config.model_type}: no latents or no experts`);
  const model = preNormDecoder(weights, config, {
    mixer: (layer, i) => latentAttention(weights, `${layer}.self_attn`, i, config, latent),
    experts(layer, i) {
      const path = `${layer}.mlp`;
      if (!moe.sparse(i) && !weights.has(`${path}.gate.weight`)) return undefined;
      return mixture(weights, path, config, moe, { shared: "shared_experts", ...correctionOf(weights, path, config) });
    },
  });
  return { ...model, unused: layersFrom(config.num_hidden_layers) };
};

function correctionOf(weights: WeightPlan, path: string, { moe }: Parameters<Family["build"]>[1]) {
  if (moe === null || moe.routing.score !== "sigmoid") return {};
  return { correction: weights.vector(`${path}.gate.e_score_correction_bias`, moe.routing.experts) };
}

/** DeepSeek-V2, V2-Lite, V2.5 and DeepSeek-Coder-V2. */
export const deepseek_v2: Family = {
  config: {
    ...DEEPSEEK_RULES,
    extras: (fields, shape) => ({ ...latentExtras(fields, shape, true), moe: readMoe(fields) }),
  },
  build: deepseek,
};
