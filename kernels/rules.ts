/** What a request asks of its logits before a token is drawn, and how that lies in memory: the kernel `adjust` reads it. */
import { f32Bits } from "./formats/halves.ts";
import { NONE } from "./kernel.ts";

/** Everything that changes logits: penalties, biases, masks. */
export interface SampleRules {
  /** Of tokens of the prompt and the answer: divides logits above 0, multiplies others; 1 is off. */
  readonly repetitionPenalty: number;
  /** Taken off the logit of each token of the answer; 0 is off. */
  readonly presencePenalty: number;
  /** The same, as often as the token is there; 0 is off. */
  readonly frequencyPenalty: number;
  /** Added to logits, by id. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** The only ids that may be drawn; null: all. */
  readonly allowed: readonly number[] | null;
  /** Runs of ids that must not come to be. */
  readonly badWords: readonly (readonly number[])[];
  /** Ids that may not be drawn before the answer has `minTokens` tokens. */
  readonly stopIds: readonly number[];
  readonly minTokens: number;
  readonly promptLength: number;
}

/** Word of each field in a block of rules; f32s by their bits, places in words from the block's beginning. */
export const RULE = {
  repetition: 0,
  presence: 1,
  frequency: 2,
  /** Tokens of the prompt. */
  prompt: 3,
  /** Where the sequence's tokens are, prompt first; NONE: no rule needs them. */
  history: 4,
  /** A bit an id that may be drawn; NONE: all may. */
  allowed: 5,
  /** (id, bias) each. */
  biases: 6,
  biasCount: 7,
  /** (place, length) each; ids at their places. */
  words: 8,
  wordCount: 9,
  stops: 10,
  stopCount: 11,
  /** Index in the sequence from which on a stop id may be drawn. */
  stopsFrom: 12,
} as const;
/** Words of a block before its lists. */
const RULE_WORDS = 16;

/** Whether a sequence's tokens must lie behind its block. */
export const needsHistory = (rules: SampleRules): boolean =>
  rules.repetitionPenalty !== 1 ||
  rules.presencePenalty !== 0 ||
  rules.frequencyPenalty !== 0 ||
  rules.badWords.some((word) => word.length > 1);

/** The block of a request's rules, the same from its first token to its last. Its tokens follow, where `needsHistory`. */
export function ruleBlock(rules: SampleRules, vocabulary: number): Uint32Array {
  const words = new Array<number>(RULE_WORDS).fill(0);
  words[RULE.repetition] = f32Bits(rules.repetitionPenalty);
  words[RULE.presence] = f32Bits(rules.presencePenalty);
  words[RULE.frequency] = f32Bits(rules.frequencyPenalty);
  words[RULE.prompt] = rules.promptLength;
  words[RULE.stopsFrom] = rules.promptLength + rules.minTokens;
  words[RULE.stopCount] = rules.minTokens > 0 ? rules.stopIds.length : 0;
  words[RULE.biasCount] = rules.logitBias.size;
  words[RULE.wordCount] = rules.badWords.length;
  const add = (more: Iterable<number>): number => {
    const at = words.length;
    for (const word of more) words.push(word);
    return at;
  };
  words[RULE.biases] = add([...rules.logitBias].flatMap(([id, bias]) => [id, f32Bits(bias)]));
  words[RULE.stops] = add(words[RULE.stopCount] === 0 ? [] : rules.stopIds);
  words[RULE.allowed] = rules.allowed === null ? NONE : add(bitsOf(rules.allowed, vocabulary));
  const places = rules.badWords.map((word) => [add(word), word.length]);
  words[RULE.words] = add(places.flat());
  words[RULE.history] = needsHistory(rules) ? words.length : NONE;
  return Uint32Array.from(words);
}

/** A bit an id, 32 ids a word. */
function bitsOf(ids: readonly number[], vocabulary: number): Uint32Array {
  const bits = new Uint32Array(Math.ceil(vocabulary / 32));
  for (const id of ids) bits[id >>> 5] = (bits[id >>> 5] ?? 0) | (1 << (id & 31));
  return bits;
}
