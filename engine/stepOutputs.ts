/** What a step brought back, read where the GPU's memory is mapped: nothing is copied but logits that were asked for. */
import { f32FromBits } from "../kernels/formats/halves.ts";
import { NONE } from "../kernels/kernel.ts";
import type { Batch } from "./batch.ts";
import type { RowOutput } from "./sequence.ts";
import type { TokenLogprob } from "./types.ts";

/** u32s that the sampler leaves a sample: id and the bits of its log-probability. */
export const DRAWN_WORDS = 2;

/** u32s a sample where the `top` best tokens are found: target and best, with their log-probabilities. */
export const bestWords = (top: number): number => 2 + 2 * top;

/** A buffer of which each sample has `words` u32s, from the beginning. */
export interface Read {
  readonly buffer: GPUBuffer;
  readonly words: number;
}

/** What is read back of a program, one buffer behind the other: what was drawn, what is best, the experts of each mixture. */
export interface OutputReads {
  readonly reads: readonly Read[];
  /** u32s a sample in all of them. */
  readonly words: number;
  readonly drawn: boolean;
  /** null: nothing is known of the best tokens. */
  readonly top: number | null;
  readonly routes: readonly { readonly slots: number; readonly top_k: number }[];
}

const NO_TOKENS: readonly TokenLogprob[] = [];

/** An output a sample. */
export function outputsOf(words: Uint32Array, samples: Batch["samples"], reads: OutputReads): RowOutput[] {
  const { drawn, top, routes } = reads;
  const word = (i: number) => words[i] ?? NONE;
  const bestAt = drawn ? DRAWN_WORDS * samples.length : 0;
  const routesAt = bestAt + (top === null ? 0 : bestWords(top) * samples.length);
  return samples.map(({ sequence, target }, i): RowOutput => {
    const at = bestAt + i * bestWords(top ?? 0);
    const tokens = top === null ? NO_TOKENS : tokensAt(words, at + 2, sequence.options.top);
    if (drawn)
      return { token: word(2 * i), logprob: f32FromBits(word(2 * i + 1)), top: tokens, finite: word(2 * i) !== NONE };
    const output = { token: target, logprob: f32FromBits(word(at)), top: tokens, finite: word(at + 1) === 0 };
    return routes.length === 0 ? output : { ...output, experts: expertsAt(words, routesAt, samples.length, i, routes) };
  });
}

/** Ids of the experts of row `row`, of each mixture. */
function expertsAt(
  words: Uint32Array,
  begin: number,
  rows: number,
  row: number,
  routes: OutputReads["routes"],
): number[][] {
  let at = begin;
  return routes.map(({ slots, top_k }) => {
    const first = at + row * slots;
    at += rows * slots;
    return [...words.subarray(first, first + top_k)];
  });
}

/** At most `count` tokens with their log-probabilities: fewer where the vocabulary has no more. */
function tokensAt(words: Uint32Array, at: number, count: number): TokenLogprob[] {
  const tokens: TokenLogprob[] = [];
  for (let i = at; i < at + 2 * count; i += 2) {
    const token = words[i] ?? NONE;
    if (token !== NONE) tokens.push({ token, logprob: f32FromBits(words[i + 1] ?? NONE) });
  }
  return tokens;
}

/** Logits of each sample, f32 (vocabulary), of rows that are `stride` apart. */
export function logitRows(
  back: ArrayBuffer,
  begin: number,
  samples: number,
  stride: number,
  vocabulary: number,
): Float32Array[] {
  return Array.from({ length: samples }, (_, i) => new Float32Array(back, begin + i * stride * 4, vocabulary).slice());
}
