/** Decoding without the CPU in between: the same as step by step in everything that can be seen, and what it costs the device. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import { countingDevice, layerDispatches } from "./countingDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const LAYERS = 2;
const VOCAB = 97;
const WINDOW = 4;
const { gpu, pipelines } = await sharedDevice();
const { gpu: counted, counts } = countingDevice({ ...gpu, off: new Set() });
const device = { gpu: counted, pipelines };
const model = tinyFolder(tinyModel({ layers: LAYERS, vocab: VOCAB, context: 512 }));
/** Every step laid out by the CPU. */
let plain: Engine;
let free: Engine;
beforeAll(async () => {
  plain = await Engine.load(model, { device: { gpu: { ...gpu, off: new Set([FREE_RUN]) }, pipelines } });
  free = await Engine.load(model, { device, window: WINDOW });
});
afterAll(async () => {
  await plain.close();
  await free.close();
  expect(counts.live.size).toBe(0);
});

const requestOf = (seed: number, more: Partial<GenerateRequest> = {}): GenerateRequest => ({
  tokens: randomTokens(seed, 5 + 3 * seed, VOCAB),
  maxTokens: 20,
  seed,
  temperature: 0.9,
  topK: 40,
  topP: 0.95,
  ignoreEos: true,
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

/** The same from both engines, and as many pages that were kept; returns it. */
async function same(requests: readonly GenerateRequest[], engine = free) {
  const want = await said(plain, requests);
  expect(await said(engine, requests)).toEqual(want);
  return want;
}

describe("a free run says what is said step by step, to the bit of every log-probability", () => {
  test("one answer, over borders of pages and of splits of the keys", async () => {
    await same([requestOf(1, { tokens: randomTokens(9, 240, VOCAB), maxTokens: 40 })]);
    await same([requestOf(2, { temperature: 0, logprobs: 5 })]);
    await same([requestOf(3, { logitBias: { 7: 3 }, minTokens: 9 })]);
    await same([requestOf(3, { repetitionPenalty: 1.3 })]);
    expect(free.stats().device.submits).toBeLessThan(0.6 * plain.stats().device.submits);
  });

  test("five at once, and one after the other is done", async () => {
    await same([1, 2, 3, 4, 5].map((seed) => requestOf(seed, { maxTokens: 4 * seed })));
  });

  test("any number of tokens, and a stop id at any place, alone and beside others", async () => {
    const [whole] = await same([requestOf(6, { temperature: 5, topK: 0, topP: 1 })]);
    const [beside] = await same([requestOf(2)]);
    const { tokens = [], logprobs = [] } = whole ?? {};
    const others = Array.from({ length: VOCAB }, (_, id) => id).filter((id) => !tokens.includes(id));
    for (let place = 0; place < 3 * WINDOW; place++) {
      const id = tokens[place] ?? Number.NaN;
      const isFirst = tokens.indexOf(id) === place;
      const ends = isFirst ? { stopTokenIds: [...others.slice(0, 3), id] } : { maxTokens: place + 1 };
      const request = requestOf(6, { temperature: 5, topK: 0, topP: 1, ...ends });
      const [cut, ...rest] = await said(free, [request, ...(place % 3 === 0 ? [requestOf(2)] : [])]);
      expect(cut).toMatchObject({ tokens: tokens.slice(0, place + 1), logprobs: logprobs.slice(0, place + 1) });
      expect([cut?.finishReason, cut?.completion]).toEqual([isFirst ? "stop" : "length", place + 1]);
      for (const other of rest) expect(other).toEqual(beside);
    }
    // More stop ids than the GPU looks for: the last ones are found when they are read.
    await same([requestOf(6, { temperature: 5, topK: 0, topP: 1, stopTokenIds: [...others, tokens[9] ?? 0] })]);
  });

  test("stop strings, which only the CPU sees", { timeout: 120_000 }, async () => {
    const stories = "test/fixtures/models/stories260k";
    const request = { prompt: "Once upon a time", maxTokens: 24, temperature: 0 };
    const off = { gpu: { ...gpu, off: new Set([FREE_RUN]) }, pipelines };
    const seen = async (options: { device: typeof device; window?: number }) =>
      await withEngine(stories, { ...options, context: 128 }, async (engine) => {
        const [whole] = await said(engine, [request]);
        const words = (whole?.text ?? "").split(" ").slice(2, 8);
        const all = [whole];
        for (const word of words) all.push(...(await said(engine, [{ ...request, stop: [word] }])));
        // What comes next finds the pages that these left: of what was said, not of what was dropped.
        const tokens = [...engine.encode(request), ...(whole?.tokens ?? [])];
        all.push(...(await said(engine, [{ tokens, maxTokens: 4, temperature: 0 }])));
        return { all, cached: engine.stats().pages.cached, shared: engine.stats().cachedTokens };
      });
    const want = await seen({ device: off });
    expect(want.all.filter((it) => it?.finishReason === "stop").length).toBeGreaterThan(4);
    expect(await seen({ device, window: WINDOW })).toEqual(want);
  });
});

describe("a free run ends", () => {
  test("where it is aborted, at any place of a window, while others go on", async () => {
    const [want, other] = await same([requestOf(1), requestOf(2)]);
    for (let at = 1; at <= WINDOW + 1; at++) {
      const controller = new AbortController();
      const beside = answer(free, requestOf(2));
      const seen: number[] = [];
      const reading = (async () => {
        for await (const { token } of free.generate(requestOf(1, { signal: controller.signal }))) {
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
    expect(await said(free, [requestOf(1)])).toEqual([want]);
  });

  test("where somebody comes, who waits for two windows at most", async () => {
    const [want] = await same([requestOf(1, { maxTokens: 60 })]);
    const [late] = await same([requestOf(5)]);
    const submits = () => free.stats().device.submits;
    let coming: Promise<{ readonly tokens: number[]; readonly submits: number }> | undefined;
    const come = async () => {
      const [came, tokens] = [submits(), [] as number[]];
      let begun = 0;
      for await (const { token } of free.generate(requestOf(5))) {
        if (tokens.push(token) === 1) begun = submits();
      }
      return { tokens, submits: begun - came };
    };
    const seen: number[] = [];
    for await (const { token } of free.generate(requestOf(1, { maxTokens: 60 }))) {
      seen.push(token);
      if (seen.length === 9) coming = come();
    }
    expect(seen).toEqual(want?.tokens);
    const { tokens, submits: waited } = (await coming) ?? { tokens: [], submits: Number.NaN };
    expect(tokens).toEqual(late?.tokens);
    expect(waited).toBeLessThanOrEqual(3); // its own, and two windows before anybody reads what it drew
  });
});

test.each([1, 5])(
  "%i answers decoding: nothing made, nothing written, one wait a window, 8 bytes a token",
  async (rows) => {
    const requests = Array.from({ length: rows }, (_, i) => requestOf(i + 1, { maxTokens: 70, temperature: 0 }));
    const short = requests.map((request) => ({ ...request, maxTokens: 20 }));
    await said(free, short);
    await said(free, short); // now prompts share pages, which are other buckets
    const parts = requests.map((request) => free.generate(request));
    const next = async (tokens: number) => {
      for (let i = 0; i < tokens; i++) await Promise.all(parts.map((part) => part.next()));
    };
    await next(10); // all of them began together, and decode
    counts.reset();
    const before = { ...free.stats().device };
    await next(40);
    const after = free.stats().device;
    const { bindGroups, buffers, pipelines: compiled, writes, dispatches, passes, submits, mappedBytes } = counts;
    expect({ bindGroups, buffers, compiled, writes }).toEqual({ bindGroups: 0, buffers: 0, compiled: 0, writes: 0 });
    expect(dispatches).toBe((layerDispatches(gpu) * LAYERS + 4) * passes); // a pass a step
    expect(passes).toBe(WINDOW * submits);
    expect(submits).toBeGreaterThanOrEqual(40 / WINDOW - 1);
    expect(after.waits - before.waits).toBe(submits);
    expect(after.writes - before.writes).toBe(0);
    // Read by now: all windows but those on their way.
    expect(mappedBytes % (8 * WINDOW * rows)).toBe(0);
    expect(mappedBytes).toBeLessThanOrEqual(8 * passes * rows);
    await Promise.all(parts.map((part) => part.return()));
    expect(free.stats().pages.used).toBe(0);
  },
);
