/** The decoder that Llama and many after it are: RMS norms before attention with rope and before a gated MLP. */
import {
  type AttentionOptions,
  attention,
  type GatedMlpOptions,
  gatedMlp,
  type Mixer,
  rmsNorm,
  sequential,
} from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import { decoder } from "./decoder.ts";
import type { Model } from "./model.ts";
import type { Mixture } from "./moe.ts";
import type { VectorOptions } from "./vectors.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** What a family changes, by the paths of its modules; left out: Llama's. */
export interface BlockOptions {
  readonly attention?: (self_attn: string) => AttentionOptions;
  readonly mlp?: (mlp: string) => GatedMlpOptions;
  /** What a layer has in place of Llama's attention, by the layer's path; undefined: that attention. */
  readonly mixer?: (layer: string, index: number) => Mixer | undefined;
  /** The experts of a layer, by the layer's path; undefined: it has a gated MLP. */
  readonly experts?: (layer: string, index: number) => Mixture | undefined;
  /** Whether the head has a bias. */
  readonly headBias?: boolean;
  /** Of the norms' weights. */
  readonly norm?: VectorOptions;
  /** Where the model is part of a larger one: path of the decoder, of the head, and what else there is. */
  readonly within?: { readonly model: string; readonly lm_head: string; readonly unused: RegExp };
}

/** Llama's model by Llama's names. 5 dispatches a layer, 2 around them. */
export function preNormDecoder(weights: WeightPlan, config: ModelConfig, options: BlockOptions = {}): Model {
  const { model = "model", lm_head = "lm_head", unused } = options.within ?? {};
  const norm = (path: string) => rmsNorm(weights, path, config, options.norm);
  return decoder(weights, config, {
    embed_tokens: `${model}.embed_tokens`,
    layer(i) {
      const path = `${model}.layers.${i}`;
      const [self_attn, mlp] = [`${path}.self_attn`, `${path}.mlp`];
      return sequential(
        norm(`${path}.input_layernorm`),
        options.mixer?.(path, i) ?? attention(weights, self_attn, i, config, options.attention?.(self_attn)),
        norm(`${path}.post_attention_layernorm`),
        options.experts?.(path, i) ?? gatedMlp(weights, mlp, config, options.mlp?.(mlp)),
      );
    },
    norm: () => norm(`${model}.norm`),
    lm_head,
    lm_head_bias: options.headBias === true,
    unused,
  });
}
