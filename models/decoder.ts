/** The frame of a decoder: embedding, layers, last norm, head. */
import type { Layer } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import type { Model } from "./model.ts";
import { capLogits } from "./ops/capLogits.ts";
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
  /** Names of tensors that text does not need. */
  readonly unused?: RegExp | undefined;
  /** Learned positions: a row a position. */
  readonly positions?: string;
}

/**
 * A decoder of these parts. Around the layers: 2 dispatches, one more for learned positions, one for a LayerNorm before the first
 * layer, one for a cap on the logits.
 */
export function decoder(weights: WeightPlan, config: ModelConfig, parts: DecoderParts): Model {
  const { hidden_size, vocab_size, tie_word_embeddings } = config;
  const embed_tokens = weights.matrix(parts.embed_tokens, vocab_size, hidden_size);
  const { max_position_embeddings } = config;
  const positions =
    parts.positions === undefined ? undefined : weights.matrix(parts.positions, max_position_embeddings, hidden_size);
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i) => parts.layer(i));
  const { residualMultiplier, logitsScale } = config;
  const last = parts.norm();
  // Scaled logits are logits of a scaled norm: the matmul behind an RMS norm has its factor, a LayerNorm its own dispatch.
  const [norm, scale] = last.kind === "rms" ? [last, logitsScale] : [{ ...last, scale: logitsScale }, 1];
  const head = parts.lm_head;
  const lm_head = tie_word_embeddings ? embed_tokens : weights.matrix(head, vocab_size, hidden_size);
  const bias = weights.stackedBias([{ module: head, rows: vocab_size }], parts.lm_head_bias === true);
  // x = m · x': the stream is kept divided by the residual multiplier m, which no norm but for its eps notices.
  const multiplier = config.embeddingMultiplier / residualMultiplier;

  return {
    head,
    unused: parts.unused,
    positions: positions === undefined ? undefined : max_position_embeddings,
    caches: layers.map(({ cache }) => cache),
    forward(step) {
      const { recorder } = step;
      const after = (i: number) => layers[i]?.norm ?? (i < layers.length ? null : norm);
      let x = embedTokens(step, embed_tokens, after(0), { multiplier, positions });
      layers.forEach((layer, i) => {
        recorder.label = `layers.${i}`;
        x = layer.run(step, x, after(i + 1));
      });
      recorder.label = "";
      if (step.samples === 0) return undefined;
      const logits = project(step, [lm_head], pick(step, x), { bias, scale, label: "lm_head" });
      return capLogits(step, logits, config.logitsSoftcap);
    },
  };
}
