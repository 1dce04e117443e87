/** How a sequence's tokens are drawn, as the sampler takes it. */

/** What the sampler needs, resolved: no field is optional any more. */
export interface SamplingParams {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly typicalP: number;
  readonly seed: number;
  /** Which of the answers to one prompt: each has random numbers of its own. */
  readonly choice: number;
  /** Whether the request gave the seed: then the same request draws the same tokens again, whatever else goes on. */
  readonly seeded: boolean;
  /** Penalties, biases and masks; null: there are none. */
  readonly rules: LogitRules | null;
}

/** Rules as the GPU reads them (kernels/rules.ts). */
export interface LogitRules {
  /** The same from the first token to the last. */
  readonly block: Uint32Array;
  /** Whether the sequence's tokens follow it. */
  readonly history: boolean;
}

/** Always the likeliest token. */
export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  seed: 0,
  choice: 0,
  seeded: false,
  rules: null,
};
