/**
 * Gemma: Llama with norms of 1 + weight, a scaled embedding and gelu. 5 L + 3 dispatches.
 *
 * Source: transformers, models/gemma/modeling_gemma.py.
 */
import { type Fields, field, unsupported } from "../configChecks.ts";
import { ATTENTION_BIASES, type ConfigRules, type Extras, type HeadShape, LLAMA_RULES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** What the config classes of Gemma 1 to 3 have in common. */
export const GEMMA_RULES: ConfigRules = {
  ...LLAMA_RULES,
  max_position_embeddings: 8192,
  head_dim: 256,
  tied: true,
  bosTokenIds: [2],
  eosTokenIds: [1],
  biases: ATTENTION_BIASES,
  extras: scaledEmbedding,
};

/** Rows of the embedding times √hidden_size. */
export function scaledEmbedding(_: Fields, { hidden_size }: HeadShape): Partial<Extras> {
  return { embeddingMultiplier: Math.sqrt(hidden_size) };
}

/** Weights of norms are kept less 1. */
export const GEMMA_NORM = { add: 1 };

/** Gemma. */
export const gemma: Family = {
  config: {
    ...GEMMA_RULES,
    num_key_value_heads: 16,
    // The first uploads say gelu and mean its tanh form.
    activation: { key: "hidden_act", otherwise: "gelu_pytorch_tanh", gelu: "gelu_pytorch_tanh" },
    extras(fields, shape) {
      const written = field(fields, "hidden_activation");
      if (written !== undefined && written !== "gelu_pytorch_tanh")
        throw unsupported(fields, "hidden_activation", "gelu_pytorch_tanh");
      return scaledEmbedding(fields, shape);
    },
  },
  build: (weights, config) => preNormDecoder(weights, config, { norm: GEMMA_NORM }),
};
