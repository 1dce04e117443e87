/** The decoder with norms behind attention and behind a gated MLP: what they give is normed, then added to the residual stream. */
import { attention, gatedMlp, rmsNorm, sandwiched } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import { decoder } from "./decoder.ts";
import type { Model } from "./model.ts";
import type { BlockOptions } from "./preNormDecoder.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** Names of a layer's norms: before a block, if there is one, and behind it. */
export interface SandwichNames {
  readonly attention: { readonly before: string | null; readonly after: string };
  readonly mlp: { readonly before: string | null; readonly after: string };
}

/** Norms behind the blocks only. */
export const POST_NORMS: SandwichNames = {
  attention: { before: null, after: "post_attention_layernorm" },
  mlp: { before: null, after: "post_feedforward_layernorm" },
};

/** A model of these norms, by Llama's other names. 7 dispatches a layer, 2 around them. */
export function sandwichDecoder(
  weights: WeightPlan,
  config: ModelConfig,
  names: SandwichNames,
  options: Pick<BlockOptions, "attention" | "mlp" | "norm" | "within"> = {},
): Model {
  const { model = "model", lm_head = "lm_head", unused } = options.within ?? {};
  const norm = (path: string) => rmsNorm(weights, path, config, options.norm);
  return decoder(weights, config, {
    embed_tokens: `${model}.embed_tokens`,
    layer(i) {
      const path = `${model}.layers.${i}`;
      const [self_attn, mlp] = [`${path}.self_attn`, `${path}.mlp`];
      const around = ({ before, after }: SandwichNames["mlp"]) => ({
        before: before === null ? null : norm(`${path}.${before}`),
        after: norm(`${path}.${after}`),
      });
      return sandwiched(
        {
          ...around(names.attention),
          block: attention(weights, self_attn, i, config, options.attention?.(self_attn)),
        },
        { ...around(names.mlp), block: gatedMlp(weights, mlp, config, options.mlp?.(mlp)) },
      );
    },
    norm: () => norm(`${model}.norm`),
    lm_head,
    unused,
  });
}
