/**
 * GLM-4 of 2025: norms before and behind attention and MLP, rope that turns neighbouring pairs of half a head. 7 L + 3 dispatches.
 *
 * Source: transformers, models/glm4/modeling_glm4.py.
 */
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { type SandwichNames, sandwichDecoder } from "../sandwichDecoder.ts";

const NORMS: SandwichNames = {
  attention: { before: "input_layernorm", after: "post_self_attn_layernorm" },
  mlp: { before: "post_attention_layernorm", after: "post_mlp_layernorm" },
};

/** GLM-4-0414. */
export const glm4: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 2,
    head_dim: 128,
    norm: { key: "rms_norm_eps", eps: 1.5625e-7 },
    bosTokenIds: [],
    eosTokenIds: [151_329, 151_336, 151_338],
    biases: { qkv: { key: "attention_bias", otherwise: true }, o: false, mlp: false },
    rope: { theta: 10_000, partial: 0.5 },
  },
  build: (weights, config) =>
    sandwichDecoder(weights, config, NORMS, {
      attention: () => ({ spec: { interleaved: true } }),
      mlp: (mlp) => ({ fused: `${mlp}.gate_up_proj` }),
    }),
};
