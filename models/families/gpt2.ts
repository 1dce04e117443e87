/**
 * GPT-2: learned positions, LayerNorm, q, k and v in one projection, an MLP without a gate; weights are stored (inputs, outputs).
 *
 * 8 L + 5 dispatches.
 * Source: transformers, models/gpt2/modeling_gpt2.py.
 */
import { attention, columnsInARow, layerNorm, plainMlp, sequential } from "../blocks.ts";
import { booleanField, type Fields } from "../configChecks.ts";
import { type ConfigRules, type Extras, type HeadShape, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";

function extras(fields: Fields, { head_dim }: HeadShape): Partial<Extras> {
  const scaled = booleanField(fields, "scale_attn_weights") ?? true;
  return {
    attentionScale: scaled ? 1 / Math.sqrt(head_dim) : 1,
    scaledByLayer: booleanField(fields, "scale_attn_by_inverse_layer_idx") ?? false,
  };
}

const config: ConfigRules = {
  ...LLAMA_RULES,
  names: {
    hidden_size: "n_embd",
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    max_position_embeddings: "n_positions",
    intermediate_size: "n_inner",
  },
  architecture: "GPT2LMHeadModel",
  sizes: { hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, vocab_size: 50_257 },
  widthOf: (hidden_size) => 4 * hidden_size,
  max_position_embeddings: 1024,
  num_key_value_heads: "always heads",
  head_dim: "always hidden / heads",
  norm: { key: "layer_norm_epsilon", eps: 1e-5 },
  activation: { key: "activation_function", otherwise: "gelu_pytorch_tanh" },
  tied: true,
  bosTokenIds: [50_256],
  eosTokenIds: [50_256],
  biases: { qkv: true, o: true, mlp: true },
  rope: null,
  extras,
};

/** GPT-2 and DistilGPT-2. */
export const gpt2: Family = {
  config,
  build(weights, config) {
    // OpenAI's upload has the bare model's names, transformers and MLX write those of the model with its head.
    const root = ["transformer.", "model."].find((it) => weights.hasUnder(`${it}wte.`)) ?? "";
    // MLX's, under `model.`, are (outputs, inputs).
    const conv1d = (module: string) => (root === "model." ? { module } : ({ module, transposed: true } as const));
    return decoder(weights, config, {
      unused: /^(transformer\.|model\.)?h\.\d+\.attn\.(masked_)?bias$/, // the causal mask and its constant, once kept as buffers
      embed_tokens: `${root}wte`,
      positions: `${root}wpe`,
      layer(i) {
        const path = `${root}h.${i}`;
        return sequential(
          layerNorm(weights, `${path}.ln_1`, config),
          attention(weights, `${path}.attn`, i, config, {
            fused: { projection: conv1d(`${path}.attn.c_attn`), columns: columnsInARow(config) },
            output: conv1d(`${path}.attn.c_proj`),
          }),
          layerNorm(weights, `${path}.ln_2`, config),
          plainMlp(weights, config, conv1d(`${path}.mlp.c_fc`), conv1d(`${path}.mlp.c_proj`)),
        );
      },
      norm: () => layerNorm(weights, `${root}ln_f`, config),
      lm_head: "lm_head",
    });
  },
};
