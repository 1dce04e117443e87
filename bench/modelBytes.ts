/** Bytes that a model's step must read, whatever the kernels do: what a share of the adapter's bandwidth is counted in. */
import type { ReadModel } from "../engine/loadModel.ts";
import type { MemoryPlan } from "../engine/memoryPlan.ts";
import type { Matrix } from "../models/matrix.ts";
import { blockBytes } from "../models/pieces.ts";
import { type SpeedTest, tgPrompt } from "./speedTest.ts";

/** Bytes on the GPU. */
export interface ModelBytes {
  /** Matrices that every step reads. */
  readonly layers: number;
  /** The matrix of the logits: only steps that draw a token read it. */
  readonly head: number;
  /** Keys and values. */
  readonly kvToken: number;
  /** States of one sequence. */
  readonly states: number;
}

/** The embedding matrix is gathered from, a row a token, and counts only where it is the head too. */
export function modelBytes(
  { weights, config }: Pick<ReadModel, "config"> & { readonly weights: Pick<ReadModel["weights"], "matrices"> },
  plan: Pick<MemoryPlan, "kvBytesPerToken" | "states" | "sequences">,
): ModelBytes {
  const size = (matrices: readonly Matrix[]) =>
    matrices.reduce((sum, matrix) => {
      const { words, scales } = blockBytes(matrix);
      return sum + matrix.blocks * (words + scales);
    }, 0);
  const embeddings = weights.matrices.filter(({ name }) => /\b(embed_tokens|wte)$/.test(name));
  const heads = config.tie_word_embeddings
    ? embeddings
    : weights.matrices.filter(({ name }) => /\blm_head$/.test(name));
  const layers = weights.matrices.filter((it) => !embeddings.includes(it) && !heads.includes(it));
  const states = plan.states / plan.sequences;
  return { layers: size(layers), head: size(heads), kvToken: plan.kvBytesPerToken, states };
}

/**
 * Bytes a token: weights once a step, keys, values and states once a step and sequence, shared by the step's tokens. Windows are not
 * taken into account, so that a model with windows reads less.
 */
export function bytesPerToken(bytes: ModelBytes, test: SpeedTest, rowsPerStep: number): number {
  const { tokens, depth, batch } = test;
  if (test.kind === "tg") {
    const keys = tgPrompt(test) + (tokens + 1) / 2; // the mean of what the timed steps see
    return (bytes.layers + bytes.head) / batch + keys * bytes.kvToken + bytes.states;
  }
  const all = tokens * batch;
  const steps = Math.ceil(all / rowsPerStep);
  const chunks = Math.ceil(tokens / rowsPerStep);
  let keys = 0;
  for (let i = 1; i <= chunks; i++) keys += depth + Math.min(i * rowsPerStep, tokens);
  const kept = batch * (keys * bytes.kvToken + chunks * bytes.states);
  return (bytes.layers * steps + bytes.head * Math.min(batch, steps) + kept) / all;
}
