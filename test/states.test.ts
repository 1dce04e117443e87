/** Layers that keep a state: any shape against f64, the same bits in any steps, and states that come back. */
import { describe, expect, test } from "vitest";
import type { Engine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/options.ts";
import { distance, logitsOf } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { type Lfm2Shape, type Qwen3NextShape, type StateShape, stateModel } from "./stateModels.ts";
import { referenceLogits } from "./stateReference.ts";
import { randomTokens, tinyFolder } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
const VOCAB = 61;
const device = await sharedDevice();
const options: EngineOptions = { device, kvType: "f32", precision: "f32" };

const LFM2: Lfm2Shape = {
  family: "lfm2",
  seed: 1,
  attends: [false, true, false],
  hidden: 40,
  heads: 3,
  kvHeads: 1,
  headDim: 24,
  intermediate: 72,
  vocab: VOCAB,
  taps: 4,
  bias: true,
  tied: true,
};
const QWEN: Qwen3NextShape = {
  family: "qwen3_next",
  seed: 2,
  attends: [false, true, false],
  hidden: 48,
  heads: 4,
  kvHeads: 1,
  headDim: 24,
  intermediate: 56,
  vocab: VOCAB,
  taps: 3,
  bias: false,
  tied: false,
  keyHeads: 2,
  group: 3,
  keyDim: 24,
  valueDim: 20,
  experts: 5,
  chosen: 2,
  expertWidth: 24,
  sharedWidth: 40,
  renormalize: true,
  plain: [],
  sparseStep: 1,
};
const SHAPES: readonly (readonly [string, StateShape])[] = [
  ["lfm2, biases, 4 taps", LFM2],
  ["lfm2 without attention, 1 tap", { ...LFM2, attends: [false, false], taps: 1, bias: false }],
  ["lfm2 of attention alone", { ...LFM2, attends: [true], headDim: 80, tied: false }],
  ["lfm2, 9 taps, wider than a run", { ...LFM2, hidden: 96, heads: 2, kvHeads: 2, headDim: 64, taps: 9 }],
  ["qwen3_next, three values a key", QWEN],
  ["qwen3_next without attention, 1 tap", { ...QWEN, attends: [false, false], taps: 1, group: 1, valueDim: 32 }],
  ["qwen3_next, a layer without experts, biases", { ...QWEN, plain: [1], bias: true, headDim: 40, renormalize: false }],
  [
    "qwen3_next, experts in every other layer",
    { ...QWEN, sparseStep: 2, keyHeads: 1, keyDim: 64, valueDim: 48, taps: 6 },
  ],
];

describe("as in f64", () => {
  test.each(FULL ? SHAPES : SHAPES.filter((_, i) => i % 4 < 2))("%s", async (_, shape) => {
    const model = stateModel(shape);
    const tokens = randomTokens(shape.seed, 21, VOCAB);
    await withEngine(tinyFolder(model), options, async (engine) => {
      const { max } = distance(await logitsOf(engine, tokens), referenceLogits(model, shape, tokens));
      expect(max).toBeLessThanOrEqual(1e-3);
    });
  });
});

const bitsOf = (values: ArrayLike<number>) => [...new Uint32Array(Float32Array.from(values).buffer)];

/** An answer's log-probabilities against those of the same ids scored at once. */
async function asScored(engine: Engine, prompt: readonly number[], maxTokens: number): Promise<void> {
  const said = await answer(engine, { tokens: prompt, maxTokens, temperature: 0, ignoreEos: true });
  expect(said.last.usage?.cachedTokens).toBe(0);
  const { logprobs } = await engine.score({ tokens: [...prompt, ...said.tokens] });
  expect(bitsOf(said.logprobs)).toEqual(bitsOf(logprobs.slice(prompt.length).map((value) => value ?? Number.NaN)));
}

describe.each<[string, StateShape]>([
  ["lfm2", LFM2],
  ["qwen3_next", QWEN],
])("the same bits, %s", (_, shape) => {
  const folder = tinyFolder(stateModel(shape));
  const prompt = randomTokens(5, 75, VOCAB);
  const rows = async (engine: Engine, tokens: readonly number[]) => (await logitsOf(engine, tokens)).map(bitsOf);

  test("at once, in chunks, among others, token by token, twice, and after giving pages up", async () => {
    const alone = await withEngine(folder, options, async (engine) => {
      const whole = await rows(engine, prompt);
      await asScored(engine, prompt.slice(0, 70), 12);
      await asScored(engine, prompt.slice(0, 70), 12); // nothing is shared, and no state is left over
      await asScored(engine, prompt.slice(0, 1), 20);
      const others = [1, 5, 64, 33].map((length, i) => ({
        tokens: randomTokens(i, length, VOCAB),
        maxTokens: 7 + i,
        temperature: i % 2,
        seed: i,
        ignoreEos: true,
      }));
      const together = Promise.all(others.map((request) => answer(engine, request)));
      expect(await rows(engine, prompt)).toEqual(whole);
      for (const [i, { tokens, logprobs }] of (await together).entries()) {
        const again = await answer(engine, others[i] ?? { tokens: [] });
        expect(again.tokens).toEqual(tokens);
        expect(bitsOf(again.logprobs)).toEqual(bitsOf(logprobs));
      }
      return whole;
    });
    for (const rowsPerStep of FULL ? [1, 2, 3, 7, 16] : [3, 16]) {
      await withEngine(folder, { ...options, rowsPerStep }, async (engine) => {
        expect(await rows(engine, prompt)).toEqual(alone);
      });
    }
  });

  test("several answers: each reads the prompt, and the first is that of one", async () => {
    await withEngine(folder, options, async (engine) => {
      const request = { tokens: prompt, maxTokens: 8, seed: 3, ignoreEos: true };
      const one = await answer(engine, request);
      const tokens: number[][] = [[], [], []];
      for await (const part of engine.generate({ ...request, n: 3 })) tokens[part.choice]?.push(part.token);
      expect(tokens[0]).toEqual(one.tokens);
      expect(new Set(tokens.map(String)).size).toBe(3);
    });
  });

  test("few pages: sequences give them up and are computed again", async () => {
    const small = shape.family === "lfm2" ? shape : { ...shape, group: 1, keyDim: 8, valueDim: 8 };
    const folder = tinyFolder(stateModel(small)); // its states take less than pages do
    const requests = [1, 2, 3, 4].map((seed) => ({
      tokens: randomTokens(seed, 20, VOCAB),
      maxTokens: 30,
      temperature: seed % 2,
      seed,
      ignoreEos: true,
    }));
    const want: Awaited<ReturnType<typeof answer>>[] = [];
    const kvMemory = await withEngine(folder, options, async (engine) => {
      for (const request of requests) want.push(await answer(engine, request));
      const { states, sequences, kvBytesPerToken } = engine.plan;
      return Math.max((4 * states) / sequences, 16 * 16 * kvBytesPerToken); // half of it is for states
    });
    await withEngine(folder, { ...options, kvMemory }, async (engine) => {
      const got = await Promise.all(requests.map((request) => answer(engine, request)));
      expect(engine.stats().preemptions).toBeGreaterThan(0);
      expect(engine.stats().pages.used).toBe(0);
      for (const [i, { tokens, logprobs }] of got.entries()) {
        expect(tokens).toEqual(want[i]?.tokens);
        expect(bitsOf(logprobs)).toEqual(bitsOf(want[i]?.logprobs ?? []));
      }
    });
  });
});

test("one state: who waits for it gets it when an abort sets it free", async () => {
  const folder = tinyFolder(stateModel(QWEN));
  const own = await withEngine(folder, options, async ({ plan }) => plan.states / plan.sequences);
  await withEngine(folder, { ...options, kvMemory: 3 * own }, async (engine) => {
    expect(engine.plan.sequences).toBe(1);
    const controller = new AbortController();
    const request = { tokens: randomTokens(5, 75, VOCAB), maxTokens: 100, temperature: 0, ignoreEos: true };
    const first = answer(engine, { ...request, signal: controller.signal, onPrompt: () => controller.abort() });
    const failed = expect(first).rejects.toThrow("aborted by its signal");
    await Promise.all([failed, asScored(engine, request.tokens.slice(0, 9), 5)]);
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, pages: { used: 0, cached: 0 } });
  });
});

test("a model that keeps states takes no proposals", async () => {
  await withEngine(tinyFolder(stateModel(LFM2)), options, async (engine) => {
    const request = { tokens: [1, 2, 3], maxTokens: 4, speculation: { promptLookup: true } };
    await expect(answer(engine, request)).rejects.toThrow("keeps a running state of what it read");
  });
});

test("memory that holds not even one state is refused in numbers", async () => {
  const load = withEngine(tinyFolder(stateModel(QWEN)), { ...options, kvMemory: 1000 }, async () => undefined);
  await expect(load).rejects.toThrow(
    /^states: .* a sequence, at most 1000 bytes by --kv-memory; raise --kv-memory to \d+ or more$/,
  );
});
