/**
 * Phi-1 to Phi-2: attention and an MLP without a gate read one LayerNorm; biases everywhere, the head's too. 7 L + 4 dispatches.
 *
 * Source: transformers, models/phi/modeling_phi.py.
 */
import { attention, layerNorm, parallel, plainMlp } from "../blocks.ts";
import { booleanField, unsupported } from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import type { Family } from "../model.ts";

const config: ConfigRules = {
  ...LLAMA_RULES,
  norm: { key: "layer_norm_eps", eps: 1e-5 },
  activation: { key: "hidden_act", otherwise: "gelu_pytorch_tanh" },
  biases: { qkv: true, o: true, mlp: true },
  rope: { theta: 10_000, partial: 0.5 },
  extras(fields) {
    if (booleanField(fields, "qk_layernorm") === true) throw unsupported(fields, "qk_layernorm", "false");
    return {};
  },
};

/** Phi-1, Phi-1.5 and Phi-2. */
export const phi: Family = {
  config,
  build: (weights, config) =>
    decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        return parallel(
          layerNorm(weights, `${path}.input_layernorm`, config),
          attention(weights, `${path}.self_attn`, i, config, { output: { module: `${path}.self_attn.dense` } }),
          plainMlp(weights, config, { module: `${path}.mlp.fc1` }, { module: `${path}.mlp.fc2` }),
        );
      },
      norm: () => layerNorm(weights, "model.final_layernorm", config),
      lm_head: "lm_head",
      lm_head_bias: true,
    }),
};
