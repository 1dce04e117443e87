/**
 * Proposals from the text itself: what came last behind the tokens that it ends with.
 *
 * Answers repeat names, quotes and code of their prompts, and then this costs nothing: no model, no memory, no state.
 */
import type { Proposer, Wanted } from "./proposer.ts";

/** A shorter match says too little: after one equal token nearly anything follows. */
const LEAST_MATCH = 2;
/** A longer match says no more. */
const MOST_MATCH = 8;

/**
 * Up to k tokens that followed the longest earlier occurrence of the end of `tokens`, of equal ones the latest. Where that
 * occurrence runs into the end itself, what it repeats goes on.
 */
export function lookUp(tokens: readonly number[], k: number): number[] {
  if (k === 0) return [];
  const end = tokens.length;
  let [best, after] = [LEAST_MATCH - 1, 0];
  for (let at = end - 1; at >= LEAST_MATCH && best < MOST_MATCH; at--) {
    let match = 0;
    while (match < MOST_MATCH && match < at && tokens[at - 1 - match] === tokens[end - 1 - match]) match++;
    if (match > best) [best, after] = [match, at];
  }
  if (after === 0) return [];
  const period = end - after;
  return Array.from({ length: k }, (_, i) => tokens[after + (i % period)] ?? Number.NaN);
}

/** The proposer of this file. */
export const promptLookup: Proposer = {
  propose: async (wanted: readonly Wanted[]) =>
    wanted.map(({ sequence, k }) => ({ tokens: lookUp(sequence.tokens, k) })),
  most: () => Number.POSITIVE_INFINITY,
  behind: () => 0,
  forget: () => {},
};
