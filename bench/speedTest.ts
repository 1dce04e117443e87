/** What is measured: llama-bench's tests by their names, and the random prompts of each repetition. */
import type { Random } from "../kernels/testbed.ts";

/**
 * "pp": a prompt of `tokens` is computed, its first token drawn. "tg": `tokens` are generated one by one. Both with `depth` tokens
 * in the cache before, and by `batch` requests at once.
 */
export interface SpeedTest {
  readonly kind: "pp" | "tg";
  readonly tokens: number;
  readonly depth: number;
  readonly batch: number;
  /** Whether tokens are proposed, by whom the run names. Unset: no. */
  readonly drafted?: boolean;
}

/** Numbers of the flags, as llama-bench has them. */
export interface SpeedPlan {
  readonly prompts: readonly number[];
  readonly generated: readonly number[];
  readonly depths: readonly number[];
  readonly batches: readonly number[];
}

/** Every test of a plan; one of 0 tokens is none. */
export function speedTests({ prompts, generated, depths, batches }: SpeedPlan): SpeedTest[] {
  const kinds = [
    ...prompts.map((tokens) => ({ kind: "pp", tokens }) as const),
    ...generated.map((tokens) => ({ kind: "tg", tokens }) as const),
  ].filter(({ tokens }) => tokens > 0);
  return batches.flatMap((batch) => depths.flatMap((depth) => kinds.map((it) => ({ ...it, depth, batch }))));
}

/** "pp512", "tg64@d1024", "tg64+draft" */
export function testName({ kind, tokens, depth, drafted = false }: SpeedTest): string {
  return `${kind}${tokens}${depth === 0 ? "" : `@d${depth}`}${drafted ? "+draft" : ""}`;
}

/** Tokens of the prompt of a test of generation: one where nothing is to be before it, since there is no empty prompt. */
export const tgPrompt = ({ depth }: SpeedTest): number => Math.max(depth, 1);

/**
 * Tokens that a request of a test of generation asks for: one that comes with the prompt, those that are timed, and one more, so
 * that the last timed step is followed by a step as all others are. With several prompts the first to be computed is generating
 * while the last one still is; it goes on until all have been timed together.
 */
export function tgTokens(test: SpeedTest, rowsPerStep: number, prompt: number = tgPrompt(test)): number {
  const promptRows = Math.max(rowsPerStep - test.batch, 1); // a step; generating sequences have theirs first
  const lead = test.batch === 1 ? 0 : Math.ceil((test.batch * prompt) / promptRows);
  return 1 + lead + test.tokens + 1;
}

/** `count` prompts of `length` random ids below `vocabulary`: the stream goes on, so that no two are alike. */
export function randomPrompts(random: Random, vocabulary: number, count: number, length: number): number[][] {
  return Array.from({ length: count }, () => Array.from({ length }, () => random.below(vocabulary)));
}
