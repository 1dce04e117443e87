/**
 * ERNIE 4.5 without experts: Llama whose rope turns neighbouring pairs, with biases everywhere or nowhere. 5 L + 3 dispatches.
 *
 * Source: transformers, models/ernie4_5/modeling_ernie4_5.py.
 */
import { LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

const use_bias = { key: "use_bias", otherwise: false };

/** ERNIE 4.5, dense. */
export const ernie4_5: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 131_072,
    num_key_value_heads: 2,
    head_dim: 128,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    tied: true,
    biases: { qkv: use_bias, o: use_bias, mlp: use_bias },
    rope: { theta: 500_000, partial: null },
  },
  build: (weights, config) => preNormDecoder(weights, config, { attention: () => ({ spec: { interleaved: true } }) }),
};
