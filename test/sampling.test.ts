/** Answers drawn with every option, against the definitions in f64 over the model's own logits; alone, and in company. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import { InvalidRequestError } from "../engine/errors.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { adjustedLogits, NO_RULES } from "../kernels/adjust.cases.ts";
import { PLAIN_SAMPLE } from "../kernels/caseData.ts";
import { PURPOSE, philox, unitInterval } from "../kernels/fragments/philox.ts";
import type { SampleRules } from "../kernels/rules.ts";
import { drawn, keptWeights } from "../kernels/sample.cases.ts";
import { countingDevice, layerDispatches } from "./countingDevice.ts";
import { logitsOf, logSoftmax } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const EOS = 5;
const PROMPT = [...randomTokens(3, 9, VOCAB), 8, 8, 9];

const { gpu, pipelines } = await sharedDevice();
const counted = countingDevice(gpu);
const folder = tinyFolder(tinyModel({ vocab: VOCAB, config: { eos_token_id: EOS } }));
let engine: Engine;
beforeAll(async () => {
  engine = await Engine.load(folder, { device: { gpu: counted.gpu, pipelines } });
});
afterEach(() => expectSums(engine));
afterAll(() => engine.close());

/** What a request does to logits, in words of the reference. */
function rulesOf(request: GenerateRequest): SampleRules {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias = {}, minTokens = 0 } = request;
  return {
    ...NO_RULES,
    repetitionPenalty,
    presencePenalty,
    frequencyPenalty,
    logitBias: new Map(Object.entries(logitBias).map(([id, bias]) => [Number(id), bias])),
    allowed: request.allowedTokenIds ?? null,
    badWords: (request.badWords ?? []).filter((word) => typeof word !== "string"),
    stopIds: [EOS],
    minTokens,
    promptLength: PROMPT.length,
  };
}

/** The token that the reference draws behind `tokens`. */
function expected(logits: Float32Array, request: GenerateRequest, tokens: readonly number[], choice = 0): number {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, typicalP = 1, seed = 0 } = request;
  const scores = Float32Array.from(adjustedLogits(logits, rulesOf(request), tokens));
  if (temperature === 0) return scores.indexOf(scores.reduce((a, b) => Math.max(a, b)));
  const random = philox([tokens.length, choice, PURPOSE.sample, 0], [seed, 0]);
  const record = { ...PLAIN_SAMPLE, temperature, topK, topP, minP, typicalP };
  return drawn(keptWeights(scores, record), unitInterval(random[0]));
}

const greedy = { temperature: 0 } as const;
const REQUESTS: readonly (readonly [string, GenerateRequest])[] = [
  ["greedy", greedy],
  ["temperature", { temperature: 0.9 }],
  ["repetition penalty", { ...greedy, repetitionPenalty: 1.6 }],
  ["presence and frequency penalties", { ...greedy, presencePenalty: 1.5, frequencyPenalty: 0.6 }],
  ["negative penalties", { temperature: 1.2, presencePenalty: -0.5, frequencyPenalty: -0.25 }],
  ["logit bias", { ...greedy, logitBias: { 3: 4, 50: 3.5, 96: -100 } }],
  ["allowed ids", { temperature: 2, allowedTokenIds: [1, 31, 32, 33, 64, 96] }],
  [
    "bad words",
    { temperature: 1, badWords: [[8], [9, 10], [8, 9, 11], ...Array.from({ length: 60 }, (_, i) => [i + 20, i + 21])] },
  ],
  ["min tokens", { ...greedy, logitBias: { [EOS]: 100 }, minTokens: 7 }],
  ["typical-p", { temperature: 1.5, typicalP: 0.7 }],
  [
    "everything",
    {
      temperature: 1.3,
      topK: 40,
      topP: 0.95,
      minP: 0.01,
      typicalP: 0.9,
      repetitionPenalty: 1.2,
      presencePenalty: 0.3,
      frequencyPenalty: 0.2,
      logitBias: { 7: 2, 8: -1 },
      allowedTokenIds: Array.from({ length: 80 }, (_, i) => i),
      badWords: [[7, 7], [12]],
      minTokens: 3,
      logprobs: 3,
    },
  ],
];

const full = (request: GenerateRequest, i: number): GenerateRequest => ({
  ...request,
  tokens: PROMPT,
  maxTokens: 20,
  seed: 100 + i,
});

type Answer = Awaited<ReturnType<typeof answer>>;
const REQUESTED = REQUESTS.map(([name, request], i) => ({ name, request: full(request, i) }));
const answered = new Map<GenerateRequest, Answer>();

/** What one of the requests is answered alone. */
async function alone(request: GenerateRequest): Promise<Answer> {
  const known = answered.get(request) ?? (await answer(engine, request));
  answered.set(request, known);
  return known;
}

/** Of all of them, one after the other. */
async function allAlone(): Promise<ReturnType<typeof said>[]> {
  const all: Answer[] = [];
  for (const { request } of REQUESTED) all.push(await alone(request));
  return all.map(said);
}

const said = ({ tokens, logprobs }: Answer) => ({ tokens, logprobs });

describe("answers are the definitions'", () => {
  test.each(REQUESTED)("$name", async ({ request }) => {
    const { tokens, logprobs, last } = await alone(request);
    const all = [...PROMPT, ...tokens];
    const logits = (await logitsOf(engine, all.slice(0, -1))).slice(PROMPT.length - 1);
    const wanted = logits.map((row, i) => expected(row, request, all.slice(0, PROMPT.length + i)));
    expect(tokens).toEqual(wanted);
    expect(last.finishReason).toBe(tokens.at(-1) === EOS ? "stop" : "length");
    // Raw, whatever the rules.
    for (const [i, row] of logits.entries())
      expect(logprobs[i]).toBeCloseTo(logSoftmax(row)[tokens[i] ?? -1] ?? Number.NaN, 4);
  });

  test("in one batch they are the same, bit for bit", async () => {
    const together = await Promise.all(REQUESTED.map(({ request }) => answer(engine, request)));
    expect(together.map(said)).toEqual(await allAlone());
  });
});

test("proposed by the model itself, they are the same, and every proposal is right", async () => {
  await withEngine(folder, { device: { gpu, pipelines }, draft: folder, context: 128 }, async (twin) => {
    const answers: Answer[] = [];
    for (const { request } of REQUESTED)
      answers.push(await answer(twin, { ...request, speculation: { draftTokens: 3 } }));
    expect(answers.map(said)).toEqual(await allAlone());
    const { proposed, accepted } = twin.stats().draft;
    expect(proposed).toBeGreaterThan(0);
    // Where a stop id ends an answer within a step, what was proposed behind it is not asked for.
    expect(accepted).toBeGreaterThanOrEqual(proposed - 2 * REQUESTS.length);
  });
});

test("a sequence that gives its pages up is penalized as before", async () => {
  const request = {
    tokens: PROMPT,
    maxTokens: 60,
    ignoreEos: true,
    repetitionPenalty: 1.3,
    frequencyPenalty: 0.5,
    seed: 4,
  };
  const calm = await answer(engine, request);
  // Pages for one of them to its end, not for four.
  await withEngine(
    folder,
    { device: { gpu, pipelines }, context: 128, kvMemory: 128 * 2 * 2 * 32 * 2 },
    async (small) => {
      const crowd = await Promise.all([0, 1, 2, 3].map(() => answer(small, request)));
      expect(small.stats().preemptions).toBeGreaterThan(0);
      for (const { tokens } of crowd) expect(tokens).toEqual(calm.tokens);
    },
  );
});

test("rules that leave no token end the answer with an error, and nobody else's", async () => {
  const request = { tokens: [1, 2], maxTokens: 5, temperature: 0, allowedTokenIds: [3], badWords: [[3, 3]] };
  const [stuck, fine] = await Promise.allSettled([answer(engine, request), answer(engine, full(greedy, 0))]);
  expect(stuck).toMatchObject({ status: "rejected", reason: expect.any(InvalidRequestError) });
  expect(fine.status).toBe("fulfilled");
});

test("the prompt's log-probabilities are what score says", async () => {
  const request = { tokens: PROMPT, maxTokens: 3, temperature: 0, promptLogprobs: 4 };
  const before = engine.stats().cachedTokens;
  const { prompt } = await first(request);
  const { logprobs, top } = await engine.score({ tokens: PROMPT, top: 4 });
  expect(prompt).toEqual({ tokens: PROMPT, logprobs, top });
  expect(engine.stats().cachedTokens).toBe(before);
  expect((await first({ ...request, promptLogprobs: 0 })).prompt?.top[1]).toEqual([]);
  const controller = new AbortController();
  controller.abort();
  await expect(first({ ...request, signal: controller.signal })).rejects.toThrow("generate: aborted by its signal");
});

async function first(request: GenerateRequest) {
  for await (const part of engine.generate(request)) return part;
  throw new RangeError("generate: ended without a part");
}

test("rules cost one dispatch a step; those that look at the text cost two writes, where others have one for all steps", async () => {
  const cost = async (more: GenerateRequest) => {
    const request = { tokens: PROMPT, ignoreEos: true, seed: 1, ...more };
    const count = async (maxTokens: number) => {
      await answer(engine, { ...request, maxTokens });
      counted.counts.reset();
      await answer(engine, { ...request, maxTokens });
      const { dispatches, writes, bindGroups, submits } = counted.counts;
      return { dispatches, writes, bindGroups, submits };
    };
    const [long, short] = [await count(11), await count(1)];
    return {
      dispatches: (long.dispatches - short.dispatches) / 10,
      writes: (long.writes - short.writes) / 10,
      made: long.bindGroups,
    };
  };
  const layer = layerDispatches(gpu);
  const plain = await cost({ temperature: 0 });
  expect(plain).toEqual({ dispatches: layer * 2 + 4, writes: 1 / 10, made: 0 }); // a step lays the next one out
  expect(await cost({ logitBias: { 5: 1 } })).toEqual({ dispatches: layer * 2 + 5, writes: 2 / 10, made: 0 });
  for (const it of [{ topK: 5 }, { topP: 0.5, typicalP: 0.5, minP: 0.1 }]) expect(await cost(it)).toEqual(plain);
  expect(await cost({ repetitionPenalty: 1.2 })).toEqual({ dispatches: layer * 2 + 4, writes: 2, made: 0 });
});
