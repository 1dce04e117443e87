/** The decoder that Llama and many after it are: RMS norms before attention with rope and before a gated MLP. */
import { type AttentionOptions, attention, gatedMlp, rmsNorm, sequential } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import { decoder } from "./decoder.ts";
import type { Model } from "./model.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** Llama's model by Llama's names; `options` are the attention's, by the path of its module. 5 dispatches a layer, 2 around them. */
export function preNormDecoder(
  weights: WeightPlan,
  config: ModelConfig,
  options: (self_attn: string) => AttentionOptions = () => ({}),
): Model {
  return decoder(weights, config, {
    embed_tokens: "model.embed_tokens",
    layer(i) {
      const path = `model.layers.${i}`;
      return sequential(
        rmsNorm(weights, `${path}.input_layernorm`, config),
        attention(weights, `${path}.self_attn`, i, config, options(`${path}.self_attn`)),
        rmsNorm(weights, `${path}.post_attention_layernorm`, config),
        gatedMlp(weights, `${path}.mlp`, config),
      );
    },
    norm: () => rmsNorm(weights, "model.norm", config),
    lm_head: "lm_head",
  });
}
