/** Draws of the sampler by the hundred thousand against their probabilities in f64: chi-square over settings by the dozen, nothing masked. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chosenAdapters } from "../device/gpu.ts";
import { chiSquareP } from "../test/chiSquare.ts";
import { sharedDevice } from "../test/sharedDevice.ts";
import { adjustedLogits, NO_RULES } from "./adjust.cases.ts";
import { ADJUST_CHUNK, adjust, MASKED } from "./adjust.ts";
import { PLAIN_SAMPLE, type SampleRecord, sampleWords } from "./caseData.ts";
import { ruleBlock, type SampleRules } from "./rules.ts";
import { keptWeights } from "./sample.cases.ts";
import { sample } from "./sample.ts";
import { type Case, Random, Testbed } from "./testbed.ts";

/** What is asked of a draw; the rest is off. */
interface Setting {
  readonly vocab: number;
  readonly record: Partial<SampleRecord>;
  readonly rules: Partial<SampleRules>;
}

const TOKENS = [3, 9, 3, 14, 15, 9, 2, 6, 5, 3, 5] as const;
const PROMPT = 4;

const RECORDS: readonly Partial<SampleRecord>[] = [
  {},
  { temperature: 0.5 },
  { temperature: 2 },
  { topK: 7 },
  { topK: 64 },
  { topP: 0.9 },
  { topP: 0.4 },
  { minP: 0.1 },
  { typicalP: 0.8 },
  { temperature: 0.7, topK: 40, topP: 0.95, minP: 0.02, typicalP: 0.9 },
];
const RULES: readonly Partial<SampleRules>[] = [
  {},
  { repetitionPenalty: 1.4, presencePenalty: 0.5, frequencyPenalty: 0.7 },
  { logitBias: new Map(Array.from({ length: 20 }, (_, i) => [3 * i, i % 2 === 0 ? 2 : -3])), repetitionPenalty: 0.6 },
  { allowed: Array.from({ length: 30 }, (_, i) => 2 * i + 1), badWords: [[1], [3, 5, 7], [9, 9]] },
  {
    badWords: [[2], [5, 8], [3, 5, 11], [5, 3, 12]],
    stopIds: [0, 4],
    minTokens: 20,
    presencePenalty: -0.8,
    logitBias: new Map([[10, 3]]),
    frequencyPenalty: 0.2,
  },
];
const VOCABS = [64, 96, 128, 200, 256, 257, 384, 500, 512] as const;

const vocabOf = (i: number) => VOCABS[i % VOCABS.length] ?? 64;

/** Every way of drawing with every set of rules, in vocabularies by turns. */
const SETTINGS = RECORDS.length * RULES.length;
/** Level of all tests together. By Holm's method none is rejected where each p is above this over their number. */
const LEVEL = 1e-4;

const FULL = process.env.INGLE_SUITE === "full";
/** Draws a setting. The full suite has a million in all on software adapters, a million each on a GPU. */
const drawsOn = (kind: "software" | "hardware") =>
  !FULL ? 100 : kind === "software" ? 1_000_000 / SETTINGS : 1_000_000;
/** Of a dispatch, which has at most 65,535 workgroups. */
const MAX_DRAWS = 65_535;
/** Of the vocabulary of a real model. */
const WIDE_DRAWS = 10_000;

/** Counts of ids over `rows` draws from position `first` on. All share one row of logits, by a stride of 0. */
function drawCase(
  { vocab, record, rules }: Setting,
  seed: number,
  rows: number,
  first: number,
  counts: Float64Array,
): Case {
  return {
    kernel: "sample",
    title: `sample vocab=${vocab} draws=${rows} first=${first} seed=${seed}`,
    async run(bed) {
      const own = recordOf(record, seed);
      const lists = bed.buffer(Uint32Array.from([...ruleBlock(rulesOf(rules), vocab), ...TOKENS]));
      const [logits, scores] = [bed.buffer(logitsOf(vocab, seed)), bed.output(vocab)];
      const once = bed.buffer(sampleWords([{ ...own, position: TOKENS.length, rules: 0 }], 0));
      const records = Array.from({ length: rows }, (_, i) => ({ ...own, position: first + i }));
      const batch = bed.buffer(sampleWords(records, 0));
      const out = bed.output(2 * rows);
      const params = { vocab, stride: 0, samples: 0 };
      await bed.submit((recorder) => {
        const grid = [Math.ceil(vocab / ADJUST_CHUNK), 1, 1] as const;
        adjust.launch(recorder, { buffers: { logits, batch: once, lists, scores }, params, grid });
        const buffers = { logits, scores, batch, out };
        sample.launch(recorder, { buffers, params: { ...params, adjusted: 1 }, grid: [rows, 1, 1] });
      });
      const ids = (await bed.u32(out)).filter((_, i) => i % 2 === 0);
      for (const id of ids) if (id < vocab) counts[id] = (counts[id] ?? 0) + 1;
      return [{ name: "ids that are none", got: [ids.filter((id) => id >= vocab).length], want: [0], limit: 0 }];
    },
  };
}

const logitsOf = (vocab: number, seed: number) => new Random(seed).floats(vocab, 6);
const rulesOf = (rules: Partial<SampleRules>): SampleRules => ({ ...NO_RULES, promptLength: PROMPT, ...rules });
const recordOf = (record: Partial<SampleRecord>, seed: number): SampleRecord => ({
  ...PLAIN_SAMPLE,
  temperature: 1,
  seedLow: seed,
  seedHigh: 7,
  ...record,
});

/** What is left of a vocabulary, in f64. */
function probabilitiesOf({ vocab, record, rules }: Setting, seed: number): Float64Array {
  const scores = Float32Array.from(adjustedLogits(logitsOf(vocab, seed), rulesOf(rules), TOKENS));
  const weights = keptWeights(scores, recordOf(record, seed));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((w, id) => (scores[id] === Math.fround(MASKED) ? 0 : w / total));
}

/** Draws so many and returns how well they fit. */
async function drawMany(bed: Testbed, setting: Setting, seed: number, draws: number): Promise<number> {
  const counts = new Float64Array(setting.vocab);
  for (let first = 0; first < draws; first += MAX_DRAWS) {
    const { why } = await bed.check(drawCase(setting, seed, Math.min(draws - first, MAX_DRAWS), first, counts));
    expect(why).toBe("");
  }
  const probabilities = probabilitiesOf(setting, seed);
  const masked = counts.reduce((sum, count, id) => (probabilities[id] === 0 ? sum + count : sum), 0);
  expect({ ...setting, masked }).toEqual({ ...setting, masked: 0 });
  return chiSquareP(counts, probabilities);
}

test("chi-square is what tables say", () => {
  // 95th percentiles of the distribution with 1, 4 and 30 degrees of freedom.
  for (const [freedom, value] of [
    [1, 3.841],
    [4, 9.488],
    [30, 43.773],
  ] as const) {
    const cells = freedom + 1;
    const counts = new Float64Array(cells).fill(100);
    // One cell up and one down by d: chi-square is 2 d² / 100.
    const d = Math.sqrt(50 * value);
    [counts[0], counts[1]] = [100 + d, 100 - d];
    expect(chiSquareP(counts, new Float64Array(cells).fill(1 / cells))).toBeCloseTo(0.05, 4);
  }
});

test("chi-square rejects probabilities that are off by a hundredth", () => {
  const fair = new Float64Array(10).fill(100_000);
  expect(chiSquareP(fair, new Float64Array(10).fill(0.1))).toBe(1);
  const off = Float64Array.from({ length: 10 }, (_, i) => (i < 5 ? 0.101 : 0.099));
  expect(chiSquareP(fair, off)).toBeLessThan(LEVEL);
});

const adapters = await chosenAdapters();

describe.each(adapters)("on $name", ({ name, kind }) => {
  let bed: Testbed;
  beforeAll(async () => {
    const { gpu, pipelines } = await sharedDevice("adapter", name);
    bed = new Testbed(gpu, pipelines);
  });
  afterAll(() => bed.close());

  test.each(RECORDS.map((record, i) => ({ record, i })))(
    "draws have their probabilities, $record",
    { timeout: 3_600_000 },
    async ({ record, i }) => {
      for (const [j, rules] of RULES.entries()) {
        if (!FULL && j !== i % RULES.length && j !== (i + 2) % RULES.length) continue; // two of five sets of rules
        const index = i * RULES.length + j;
        const p = await drawMany(bed, { vocab: vocabOf(index), record, rules }, 1000 + index, drawsOn(kind));
        expect(p, `p of rules ${j}`).toBeGreaterThan(LEVEL / SETTINGS);
      }
    },
  );

  test.runIf(FULL)("draws from 49,152 tokens have theirs", { timeout: 3_600_000 }, async () => {
    for (const i of [0, 3, 5, 8, 9]) {
      const setting = { vocab: 49_152, record: RECORDS[i] ?? {}, rules: RULES[i % RULES.length] ?? {} };
      expect(await drawMany(bed, setting, 2000 + i, WIDE_DRAWS)).toBeGreaterThan(LEVEL / 5);
    }
  });
});
