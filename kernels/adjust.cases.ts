/** Cases of rules on logits: each alone and all together, words that match and nearly match, rows without rules, borders of chunks. */
import { ADJUST_CHUNK, adjust, MASKED, MAX_SCORE } from "./adjust.ts";
import { PLAIN_SAMPLE, type SampleRecord, sampleWords } from "./caseData.ts";
import { NONE } from "./kernel.ts";
import { randomLogits, stacked } from "./logitData.ts";
import { ruleBlock, type SampleRules } from "./rules.ts";
import { type Case, type Comparison, Random } from "./testbed.ts";

/** Scores are one to four f32 operations on a logit. */
const LIMIT = 1e-12;

/** Nothing changes. */
export const NO_RULES: SampleRules = {
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  allowed: null,
  badWords: [],
  stopIds: [],
  minTokens: 0,
  promptLength: 0,
};

/** What rules make of a row of logits behind `tokens`, in f64; MASKED where a token may not be drawn. */
export function adjustedLogits(logits: ArrayLike<number>, rules: SampleRules, tokens: readonly number[]): Float64Array {
  const answer = tokens.slice(rules.promptLength);
  const counts = new Map<number, number>();
  for (const id of answer) counts.set(id, (counts.get(id) ?? 0) + 1);
  const seen = new Set(tokens);
  const { fround } = Math;
  const repetition = fround(rules.repetitionPenalty);
  const scores = Float64Array.from(logits, (logit, id) => {
    const biased = logit + fround(rules.logitBias.get(id) ?? 0);
    const repeated = !seen.has(id) ? biased : biased > 0 ? biased / repetition : biased * repetition;
    const count = counts.get(id) ?? 0;
    const presence = count > 0 ? fround(rules.presencePenalty) : 0;
    const score = repeated - fround(rules.frequencyPenalty) * count - presence;
    return Math.min(Math.max(score, -MAX_SCORE), MAX_SCORE);
  });
  const banned = [
    ...rules.badWords
      .filter((word) => word.slice(0, -1).every((id, i) => tokens[tokens.length - word.length + 1 + i] === id))
      .map((word) => word.at(-1) ?? NONE),
    ...(answer.length < rules.minTokens ? rules.stopIds : []),
  ];
  for (const id of banned) scores[id] = MASKED;
  if (rules.allowed === null) return scores;
  const allowed = new Set(rules.allowed);
  return scores.map((score, id) => (allowed.has(id) ? score : MASKED));
}

/** Which rules a case has; "plain" has none. */
const KINDS = ["plain", "repetition", "counts", "bias", "allowed", "words", "stops", "all"] as const;
type Kind = (typeof KINDS)[number];

/** Tokens of a sequence, of which many come more than once. */
function someTokens(random: Random, vocab: number): number[] {
  const often = Array.from({ length: 5 }, () => random.below(vocab));
  return Array.from({ length: random.below(60) }, () =>
    random.next() < 0.5 ? random.pick(often) : random.below(vocab),
  );
}

function someRules(random: Random, kind: Kind, vocab: number, tokens: readonly number[]): SampleRules {
  const has = (one: Kind) => kind === one || kind === "all";
  const ids = (most: number) => Array.from({ length: 1 + random.below(most) }, () => random.below(vocab));
  const penalty = () => random.next() * 4 - 2;
  const promptLength = Math.min(tokens.length, random.below(40));
  return {
    repetitionPenalty: has("repetition") ? random.pick([0.5, 1.1, 1.5]) : 1,
    presencePenalty: has("counts") ? penalty() : 0,
    frequencyPenalty: has("counts") ? penalty() : 0,
    logitBias: new Map(has("bias") ? [...ids(300), ...tokens.slice(0, 4)].map((id) => [id, 50 * penalty()]) : []),
    allowed: has("allowed") ? [...ids(vocab), 0, vocab - 1, ...tokens.slice(-4)] : null,
    badWords: has("words") ? someWords(random, vocab, tokens) : [],
    stopIds: has("stops") ? ids(4) : [],
    minTokens: has("stops") ? Math.max(tokens.length - promptLength + random.below(3) - 1, 0) : 0,
    promptLength,
  };
}

/** Single tokens, words that the sequence's end begins, the same but for one token, and one longer than the sequence. */
function someWords(random: Random, vocab: number, tokens: readonly number[]): number[][] {
  const last = () => random.below(vocab);
  const ends = [1, 2, 3, tokens.length].filter((length) => length <= tokens.length && length > 0);
  const matching = ends.map((length) => [...tokens.slice(-length), last()]);
  const missing = ends.map((length) => {
    const word = [...tokens.slice(-length), last()];
    const at = random.below(length);
    word[at] = ((word[at] ?? 0) + 1) % (vocab + 1);
    return word;
  });
  return [[last()], [last()], ...matching, ...missing, [last(), ...tokens, last()]];
}

interface AdjustShape {
  readonly vocab: number;
  readonly rows: number;
  readonly kind: Kind;
  readonly seed: number;
}

function adjustCase({ vocab, rows, kind, seed }: AdjustShape): Case {
  return {
    kernel: "adjust",
    title: `adjust vocab=${vocab} rows=${rows} ${kind} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const stride = vocab + random.below(5);
      const logits = Array.from({ length: rows }, () => randomLogits(random, "normal", vocab));
      const lists: number[] = Array.from({ length: random.below(20) }, () => NONE);
      const records: SampleRecord[] = [];
      const wanted = logits.map((row, i) => {
        const tokens = someTokens(random, vocab);
        const position = tokens.length;
        const rules = someRules(random, kind, vocab, tokens);
        // Every third row has none, and what is behind a sequence's tokens is no business of its sample.
        if (kind === "plain" || i % 3 === 2) {
          records.push({ ...PLAIN_SAMPLE, position });
          return Float64Array.from(row);
        }
        records.push({ ...PLAIN_SAMPLE, position, rules: lists.length });
        for (const word of ruleBlock(rules, vocab)) lists.push(word);
        lists.push(...tokens, random.below(vocab), random.below(vocab));
        return adjustedLogits(row, rules, tokens);
      });
      const lead = random.below(40);
      const scores = bed.output(rows * stride);
      const buffers = {
        logits: bed.buffer(stacked(logits, stride)),
        batch: bed.buffer(sampleWords(records, lead)),
        lists: bed.buffer(Uint32Array.from([...lists, NONE])),
        scores,
      };
      const params = { vocab, stride, samples: lead };
      const grid = [Math.ceil(vocab / ADJUST_CHUNK), rows, 1] as const;
      await bed.submit((recorder) => adjust.launch(recorder, { buffers, params, grid }));
      const got = await bed.f32(scores);
      return wanted.flatMap((row, i) => compared(`row ${i}`, got.subarray(i * stride, i * stride + stride), row));
    },
  };
}

/** Scores against f64: masks where masks are, the rest by its error, untouched what lies behind the row. */
function compared(name: string, got: Float32Array, want: Float64Array): Comparison[] {
  const masks = (row: ArrayLike<number>) => Array.from(row, (score) => (score === Math.fround(MASKED) ? 1 : 0));
  const open = (row: ArrayLike<number>) => Array.from(row, (score) => (score < -1e38 ? 0 : score));
  const own = got.subarray(0, want.length);
  return [
    { name: `${name}: masks`, got: masks(own), want: masks(want.map(Math.fround)), limit: 0 },
    { name: `${name}: scores`, got: open(own), want: open(want), limit: LIMIT },
    {
      name: `${name}: words behind it that were written`,
      got: [got.subarray(want.length).reduce((count, value) => count + (Number.isNaN(value) ? 0 : 1), 0)],
      want: [0],
      limit: 0,
    },
  ];
}

const VOCABS = [1, 31, 1023, 1024, 1025, 2500] as const;

/** `count` cases: rules by turns, in vocabularies about the words of a mask and the ids of a workgroup. */
export function adjustCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 6007);
    const kind = KINDS[i % KINDS.length] ?? "plain";
    return adjustCase({ vocab: random.pick(VOCABS), rows: 1 + random.below(4), kind, seed });
  });
}

/** A vocabulary of a real model. */
export const realAdjustCases = (firstSeed: number): Case[] => [
  adjustCase({ vocab: 49152, rows: 3, kind: "all", seed: firstSeed }),
];
