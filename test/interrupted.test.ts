/** Requests that end before their answer does, at any step and in any state: the engine's next answer is a fresh engine's. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import { AbortError } from "../engine/errors.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { countingDevice } from "./countingDevice.ts";
import { answer, sharedDevice } from "./sharedDevice.ts";
import { watched } from "./stepWatch.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
const VOCAB = 61;

const { gpu, pipelines } = await sharedDevice();
const { gpu: counted, counts } = countingDevice(gpu);
const watch = watched(counted);
const device = { gpu: watch.gpu, pipelines };
const folder = tinyFolder(
  tinyModel({ layers: 1, hidden: 32, heads: 2, kvHeads: 1, intermediate: 32, vocab: VOCAB, context: 256 }),
);
/** Prompts are read in several steps, and some that decode run freely. */
const options: EngineOptions = { device, draft: folder, context: 96, rowsPerStep: 8, window: 4 };

/** How a request ends: by itself, by its signal at a step, by its reader behind a number of parts. */
type End =
  | { readonly by: "itself" }
  | { readonly by: "signal"; readonly step: number }
  | { readonly by: "leaving" | "throwing"; readonly parts: number };

interface Wish {
  readonly request: GenerateRequest;
  readonly scores: boolean;
  /** The step at which it comes. */
  readonly comes: number;
  readonly end: End;
}

const anyEnd = fc.oneof(
  fc.constant<End>({ by: "itself" }),
  fc.record({ by: fc.constant("signal" as const), step: fc.nat(30) }),
  fc.record({ by: fc.constantFrom("leaving" as const, "throwing" as const), parts: fc.integer({ min: 1, max: 9 }) }),
);
const anyWish = fc
  .record({
    seed: fc.nat(2), // so that prompts share pages
    length: fc.integer({ min: 1, max: 60 }),
    maxTokens: fc.integer({ min: 1, max: 24 }),
    temperature: fc.constantFrom(0, 1),
    n: fc.constantFrom(1, 1, 3),
    priority: fc.constantFrom(0, 0, 0, -1, 1),
    speculation: fc.constantFrom(false as const, { draftTokens: 3 }, { promptLookup: true, draftTokens: 4 }),
    promptLogprobs: fc.constantFrom(null, null, null, 1),
    scores: fc.constantFrom(false, false, false, true),
    comes: fc.oneof(fc.constant(0), fc.nat(12)),
    end: anyEnd,
  })
  .map(({ seed, length, scores, comes, end, promptLogprobs, ...rest }): Wish => {
    const tokens = randomTokens(seed, length, VOCAB);
    const prompt = promptLogprobs === null ? {} : { promptLogprobs };
    return { request: { ...rest, ...prompt, tokens, seed, ignoreEos: true }, scores, comes, end };
  });

/** What came, by answer: tokens and their log-probabilities. */
type Came = readonly (readonly (number | null)[])[];

/** A request to its end, whichever that is. */
async function run(engine: Engine, { request, scores, end }: Wish, signal: AbortSignal): Promise<Came> {
  const { tokens = [], priority = 0 } = request;
  if (scores) return [(await engine.score({ tokens, priority, signal })).logprobs];
  const came = Array.from({ length: request.n ?? 1 }, (): (number | null)[] => []);
  let parts = 0;
  for await (const { choice, token, logprob } of engine.generate({ ...request, signal })) {
    came[choice]?.push(token, logprob);
    const last = end.by === "leaving" || end.by === "throwing" ? end.parts : Number.NaN;
    if (++parts !== last) continue;
    if (end.by === "leaving") break;
    throw new Error("the reader's own");
  }
  return came;
}

/** All wishes at once, each at its step. */
async function play(engine: Engine, wishes: readonly Wish[]): Promise<PromiseSettledResult<Came>[]> {
  const running: Promise<Came>[] = [];
  const controllers = wishes.map(() => new AbortController());
  let step = 0;
  const act = () => {
    wishes.forEach((wish, i) => {
      const { signal } = controllers[i] ?? new AbortController();
      if (wish.comes === step) running[i] = run(engine, wish, signal);
      running[i]?.catch(() => undefined); // looked at below
      if (wish.end.by === "signal" && wish.end.step === step) controllers[i]?.abort();
    });
    step++;
  };
  watch.onStep = act;
  act();
  await Promise.allSettled(running.filter((it) => it !== undefined));
  // Steps may end before all have come.
  while (step < 40) {
    act();
    await Promise.allSettled(running.filter((it) => it !== undefined));
  }
  watch.onStep = () => {};
  return await Promise.allSettled(running);
}

test("any requests, interrupted anywhere: the others' answers and the next one are as without", {
  timeout: 3_600_000,
}, async () => {
  const quiet = await Engine.load(folder, { ...options, draft: folder });
  const kvMemory = 9 * 16 * quiet.plan.kvBytesPerToken; // so that some give their pages up
  const engine = await Engine.load(folder, { ...options, kvMemory });
  const probe = { tokens: randomTokens(1, 37, VOCAB), maxTokens: 6, temperature: 0, ignoreEos: true } as const;
  const fresh = await answer(quiet, probe);
  const seen = { itself: 0, signal: 0, leaving: 0, throwing: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(anyWish, { minLength: 2, maxLength: 6 }), async (wishes) => {
      const results = await play(engine, wishes);
      for (const [i, result] of results.entries()) {
        const wish = wishes[i];
        if (wish === undefined) throw new RangeError(`no wish ${i}`);
        seen[wish.end.by]++;
        if (result.status === "rejected") {
          if (wish.end.by === "signal") expect(result.reason).toBeInstanceOf(AbortError);
          else expect([wish.end.by, String(result.reason)]).toEqual(["throwing", "Error: the reader's own"]);
        } else {
          const whole = await run(quiet, { ...wish, end: { by: "itself" } }, new AbortController().signal);
          const left = wish.end.by === "leaving";
          expect(result.value).toEqual(left ? whole.map((one, c) => one.slice(0, result.value[c]?.length)) : whole);
        }
      }
      expectSums(engine);
      const next = await answer(engine, probe);
      expect([next.tokens, next.logprobs]).toEqual([fresh.tokens, fresh.logprobs]);
      expectSums(engine);
    }),
    { numRuns: FULL ? 400 : 14, seed: 20261126 },
  );
  const { preemptions, draft, cachedTokens } = engine.stats();
  for (const count of [preemptions, draft.proposed, cachedTokens, ...Object.values(seen)])
    expect(count).toBeGreaterThan(0);
  await Promise.all([quiet.close(), engine.close()]);
  expect(counts.live.size).toBe(0);
});

test("closed at any step: every request ends with AbortError, and nothing stays", { timeout: 600_000 }, async () => {
  for (const at of FULL ? Array.from({ length: 20 }, (_, i) => i) : [0, 1, 4, 9, 14]) {
    const engine = await Engine.load(folder, options);
    let [step, closed] = [0, Promise.resolve()];
    watch.onStep = () => {
      if (step++ === at) closed = engine.close();
    };
    const request = { tokens: randomTokens(1, 40, VOCAB), temperature: 0, ignoreEos: true };
    const results = await Promise.allSettled([
      answer(engine, { ...request, speculation: { draftTokens: 3 } }),
      answer(engine, { ...request, promptLogprobs: 1 }),
      engine.score({ tokens: randomTokens(2, 90, VOCAB) }),
      (async () => {
        const slow = engine.generate({ ...request, tokens: [1, 2] });
        await slow.next();
        await closed; // what it has not taken yet is told to it still
        while ((await slow.next()).done !== true);
      })(),
    ]);
    await closed;
    watch.onStep = () => {};
    for (const result of results) expect(result).toMatchObject({ reason: expect.any(AbortError) });
    expectSums(engine);
    await engine.close();
    expect(counts.live.size).toBe(0);
  }
});
