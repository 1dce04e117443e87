/** Decoding without the CPU in between: the same as step by step in everything that can be seen, and what it costs the device. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import { countingDevice } from "./countingDevice.ts";
import { answer, sharedDevice } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const LAYERS = 2;
const VOCAB = 97;
const { gpu, pipelines } = await sharedDevice();
const { gpu: counted, counts } = countingDevice({ ...gpu, off: new Set() });
const model = tinyFolder(tinyModel({ layers: LAYERS, vocab: VOCAB, context: 512 }));
/** Every step laid out by the CPU. */
let plain: Engine;
let free: Engine;
beforeAll(async () => {
  plain = await Engine.load(model, { device: { gpu: { ...gpu, off: new Set([FREE_RUN]) }, pipelines } });
  free = await Engine.load(model, { device: { gpu: counted, pipelines } });
});
afterAll(async () => {
  await plain.close();
  await free.close();
  expect(counts.live.size).toBe(0);
});

const SAMPLED = { temperature: 0.9, topK: 40, topP: 0.95, ignoreEos: true };
const requestOf = (seed: number, more: Partial<GenerateRequest> = {}): GenerateRequest => ({
  tokens: randomTokens(seed, 5 + 3 * seed, VOCAB),
  maxTokens: 40,
  seed,
  ...SAMPLED,
  ...more,
});

/** What each of the requests says, all at once; nothing is held afterwards. */
async function said(engine: Engine, requests: readonly GenerateRequest[]) {
  const answers = await Promise.all(requests.map((request) => answer(engine, request)));
  const { pages, running } = engine.stats();
  expect([pages.used, running]).toEqual([0, 0]);
  return answers.map(({ tokens, logprobs, text, last: { finishReason, usage } }) => {
    return { tokens, logprobs, text, finishReason, completion: usage?.completionTokens };
  });
}

/** The same from both engines; returns it. */
async function same(requests: readonly GenerateRequest[]) {
  const want = await said(plain, requests);
  expect(await said(free, requests)).toEqual(want);
  return want;
}

describe("a free run says what is said step by step, to the bit of every log-probability", () => {
  test("one answer, greedy and drawn, over borders of pages and of splits of the keys", async () => {
    await same([requestOf(1, { maxTokens: 300 })]);
    await same([requestOf(2, { maxTokens: 100, temperature: 0, logprobs: 5 })]);
    await same([requestOf(3, { logitBias: { 7: 3 }, minTokens: 9, presencePenalty: 0 })]);
    await same([requestOf(3, { repetitionPenalty: 1.3 })]);
  });

  test("five at once, of which one after the other is done", async () => {
    await same([1, 2, 3, 4, 5].map((seed) => requestOf(seed, { maxTokens: 11 * seed })));
    await same([1, 2, 3, 4, 5].map((seed) => requestOf(seed)));
  });

  test("any number of tokens", async () => {
    const [whole] = await same([requestOf(4)]);
    for (let maxTokens = 1; maxTokens <= 20; maxTokens++) {
      const [cut] = await said(free, [requestOf(4, { maxTokens })]);
      expect(cut?.tokens).toEqual(whole?.tokens.slice(0, maxTokens));
      expect([cut?.finishReason, cut?.completion]).toEqual(["length", maxTokens]);
    }
  });

  test("a stop id anywhere, alone and beside others that go on", async () => {
    const [whole] = await same([requestOf(6)]);
    const tokens = whole?.tokens ?? [];
    const places = tokens.map((id, place) => ({ id, place })).filter(({ id, place }) => tokens.indexOf(id) === place);
    expect(places.length).toBeGreaterThan(15);
    for (const { id, place } of places) {
      const request = requestOf(6, { stopTokenIds: [96, id].filter((it) => it === id || !tokens.includes(it)) });
      const answers = await said(free, [request, ...(place % 4 === 0 ? [requestOf(2), requestOf(3)] : [])]);
      expect(answers[0]?.tokens).toEqual(tokens.slice(0, place + 1));
      expect([answers[0]?.finishReason, answers[0]?.completion]).toEqual(["stop", place + 1]);
      expect(answers[0]?.logprobs).toEqual(whole?.logprobs.slice(0, place + 1));
    }
    // More stop ids than the GPU looks for.
    const last = places.at(-1)?.id ?? Number.NaN;
    const others = Array.from({ length: VOCAB }, (_, id) => id).filter((id) => !tokens.includes(id));
    await same([requestOf(6, { stopTokenIds: [...others, last] })]);
  });

  test("what was computed beyond the end is nobody's: the next one finds the answer's pages, and no more", async () => {
    const [whole] = await same([requestOf(7, { maxTokens: 60 })]);
    const tokens = [...randomTokens(7, 26, VOCAB), ...(whole?.tokens ?? [])];
    await same([requestOf(7, { tokens: [...tokens.slice(0, 70), 1, 2, 3] }), requestOf(8)]);
  });
});

describe("a free run ends where", () => {
  test("it is aborted, at any moment, while others go on", async () => {
    const [want, other] = await same([requestOf(1, { maxTokens: 60 }), requestOf(2, { maxTokens: 60 })]);
    for (const at of [1, 2, 7, 19, 33]) {
      const controller = new AbortController();
      const beside = answer(free, requestOf(2, { maxTokens: 60 }));
      const seen: number[] = [];
      const reading = (async () => {
        for await (const { token } of free.generate(requestOf(1, { maxTokens: 60, signal: controller.signal }))) {
          seen.push(token);
          if (seen.length === at) controller.abort();
        }
      })();
      await expect(reading).rejects.toMatchObject({ code: "ABORTED" });
      expect(seen).toEqual(want?.tokens.slice(0, seen.length));
      const { tokens, logprobs } = await beside;
      expect({ tokens, logprobs }).toEqual({ tokens: other?.tokens, logprobs: other?.logprobs });
      expect(free.stats().pages.used).toBe(0);
    }
    expect(await said(free, [requestOf(1, { maxTokens: 60 })])).toEqual([want]);
  });

  test("somebody comes", async () => {
    const [want] = await same([requestOf(1, { maxTokens: 90 })]);
    const [late] = await same([requestOf(5)]);
    let coming: Promise<unknown> = Promise.resolve();
    const seen: number[] = [];
    for await (const { token } of free.generate(requestOf(1, { maxTokens: 90 }))) {
      seen.push(token);
      if (seen.length === 13) coming = said(free, [requestOf(5)]).catch(() => answer(free, requestOf(5)));
      if (seen.length === 13) coming = answer(free, requestOf(5));
    }
    expect(seen).toEqual(want?.tokens);
    expect(await coming).toMatchObject({ tokens: late?.tokens, logprobs: late?.logprobs });
  });
});

test("steady decoding makes nothing, writes nothing, waits once a window and reads 8 bytes a token", async () => {
  for (const rows of [1, 5]) {
    const requests = Array.from({ length: rows }, (_, i) => requestOf(i + 1, { maxTokens: 100, temperature: 0 }));
    await said(free, requests);
    await said(free, requests);
    counts.reset();
    const before = free.stats().device;
    const parts = requests.map((request) => free.generate(request));
    // All are decoding once each has had some tokens.
    for (const part of parts) for (let i = 0; i < 8; i++) await part.next();
    const reset = { ...free.stats().device, made: counts.buffers + counts.bindGroups + counts.pipelines };
    const from = { writes: counts.writes, mapped: counts.mappedBytes, dispatches: counts.dispatches };
    for (const part of parts) for (let i = 0; i < 60; i++) await part.next();
    const after = free.stats().device;
    const steps = (counts.dispatches - from.dispatches) / (5 * LAYERS + 4);
    console.log(rows, before, reset, after, from, counts.writes, steps);
    for (const part of parts) await part.return();
  }
});
