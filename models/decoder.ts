/** The frame of a decoder: embedding, layers, last norm, head. */
import type { Layer } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import type { Model } from "./model.ts";
import { embedTokens } from "./ops/embedTokens.ts";
import { pick } from "./ops/pick.ts";
import { project } from "./ops/project.ts";
import type { Norm } from "./step.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** What a decoder is made of, by the hub's names of modules. */
export interface DecoderParts {
  readonly embed_tokens: string;
  layer(index: number): Layer;
  /** Behind the last layer. */
  norm(): Norm;
  readonly lm_head: string;
  readonly lm_head_bias?: boolean;
}

/** A decoder of these parts: 2 dispatches around the layers where norms are RMS norms, of which each layer may want more. */
export function decoder(weights: WeightPlan, config: ModelConfig, parts: DecoderParts): Model {
  const { hidden_size, vocab_size, tie_word_embeddings, num_key_value_heads: kvHeads, head_dim: headDim } = config;
  const embed_tokens = weights.matrix(parts.embed_tokens, vocab_size, hidden_size);
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i) => parts.layer(i));
  const norm = parts.norm();
  const head = parts.lm_head;
  const lm_head = tie_word_embeddings ? embed_tokens : weights.matrix(head, vocab_size, hidden_size);
  const bias = weights.stackedBias([{ module: head, rows: vocab_size }], parts.lm_head_bias === true);
  // x = m · x': the stream is kept divided by the residual multiplier m, which no norm but for its eps notices.
  const { residualMultiplier, logitsScale: scale } = config;
  const multiplier = config.embeddingMultiplier / residualMultiplier;

  return {
    head,
    caches: layers.map((_, i) => ({ kind: "pages", kvHeads, headDim, window: config.windows[i] ?? null })),
    forward(step) {
      const { recorder } = step;
      const after = (i: number) => layers[i]?.norm ?? (i < layers.length ? null : norm);
      let x = embedTokens(step, embed_tokens, after(0), multiplier);
      layers.forEach((layer, i) => {
        recorder.label = `layers.${i}`;
        x = layer.run(step, x, after(i + 1));
      });
      recorder.label = "";
      if (step.samples === 0) return undefined;
      return project(step, [lm_head], pick(step, x), { bias, scale, label: "lm_head" });
    },
  };
}
