/**
 * GPT-NeoX, Pythia: LayerNorm, rope over a part of each head, q, k and v of a head side by side in one projection, an MLP without a gate;
 * attention and MLP read one residual stream, or one after the other.
 *
 * 8 L + 4 dispatches.
 * Source: transformers, models/gpt_neox/modeling_gpt_neox.py.
 */
import { attention, layerNorm, parallel, plainMlp, sequential } from "../blocks.ts";
import { booleanField } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";

const attention_bias = { key: "attention_bias", otherwise: true };

const config: ConfigRules = {
  ...LLAMA_RULES,
  num_key_value_heads: "always heads",
  head_dim: "always hidden / heads",
  norm: { key: "layer_norm_eps", eps: 1e-5 },
  activation: { key: "hidden_act", otherwise: "gelu" },
  bosTokenIds: [0],
  biases: { qkv: attention_bias, o: attention_bias, mlp: true },
  rope: { theta: 10_000, partial: 0.25, names: { theta: "rotary_emb_base", partial: "rotary_pct" } },
  extras: (fields) => ({ parallelResidual: booleanField(fields, "use_parallel_residual") ?? true }),
};

/** GPT-NeoX and Pythia. */
export const gpt_neox: Family = {
  config,
  build(weights, config) {
    const { head_dim } = config;
    const mlx = weights.hasUnder("model.embed_in."); // not "model.": known extras may be there
    const [root, layers] = mlx ? ["model", "h"] : ["gpt_neox", "layers"];
    const head = (part: number) => ({ at: part * head_dim, stride: 3 * head_dim });
    return decoder(weights, config, {
      unused: /^gpt_neox\.layers\.\d+\.attention\.(masked_)?bias$/, // the causal mask and its constant, once kept as buffers
      embed_tokens: `${root}.embed_in`,
      layer(i) {
        const path = `${root}.${layers}.${i}`;
        const input_layernorm = layerNorm(weights, `${path}.input_layernorm`, config);
        const self_attn = attention(weights, `${path}.attention`, i, config, {
          fused: {
            projection: { module: `${path}.attention.query_key_value` },
            columns: { q: head(0), k: head(1), v: head(2) },
          },
          output: { module: `${path}.attention.dense` },
        });
        const post_attention_layernorm = layerNorm(weights, `${path}.post_attention_layernorm`, config);
        const [up, down] = [`${path}.mlp.dense_h_to_4h`, `${path}.mlp.dense_4h_to_h`];
        const mlp = plainMlp(weights, config, { module: up }, { module: down });
        return config.parallelResidual
          ? parallel(input_layernorm, self_attn, mlp, post_attention_layernorm)
          : sequential(input_layernorm, self_attn, post_attention_layernorm, mlp);
      },
      norm: () => layerNorm(weights, `${root}.final_layer_norm`, config),
      // Transformers 5, MLX and the hub.
      lm_head: ["lm_head", "model.embed_out"].find((it) => weights.has(`${it}.weight`)) ?? "embed_out",
    });
  },
};
