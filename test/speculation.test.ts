/** Speculative decoding changes nothing but the time: tokens, log-probabilities, where answers end, and what is held afterwards. */
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Folder } from "../device/files.ts";
import type { Engine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { Random } from "../kernels/testbed.ts";
import { gTestP } from "./chiSquare.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { floats, randomTokens, type TinyModel, tinyFolder, tinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
const PROMPTS = FULL ? 500 : 50;
/** Each prompt has another number of proposals in each round; in eight it has had all from 1 to 8. */
const ROUNDS = FULL ? 8 : 1;
const TOGETHER = 32;
const LENGTH = 16;
const VOCAB = 61;

const device = await sharedDevice();
const options: EngineOptions = { device, context: 256 };
const shape = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, intermediate: 32, vocab: VOCAB, context: 256 } as const;
const model = tinyFolder(tinyModel(shape));

/** The model with its head's rows multiplied: by −1, what it holds for likeliest is what the target holds for the least likely. */
function withHead({ config, tensors }: TinyModel, change: (value: number, index: number) => number): TinyModel {
  const head = tensors.get("lm_head.weight");
  if (head === undefined) throw new Error("lm_head is tied");
  const values = new Float32Array(head.bytes.slice().buffer).map(change);
  return { config, tensors: new Map([...tensors, ["lm_head.weight", floats(values, "F32", head.shape)]]) };
}

const DRAFTS: Readonly<Record<string, Folder>> = {
  "the model itself": model,
  good: tinyFolder(withHead(tinyModel(shape), (value, i) => value + 0.08 * Math.sin(7 * i))),
  random: tinyFolder(tinyModel({ ...shape, seed: 99 })),
  "always wrong": tinyFolder(withHead(tinyModel(shape), (value) => -value)),
  "of a shorter context": tinyFolder(tinyModel({ ...shape, context: 24 })), // what is longer has no proposals
};

const requests = Array.from(
  { length: PROMPTS },
  (_, i): GenerateRequest => ({
    tokens: randomTokens(i, 1 + (i % 40), VOCAB),
    maxTokens: LENGTH,
    temperature: 0,
    ignoreEos: true,
  }),
);

type Answer = Awaited<ReturnType<typeof answer>>;

async function answers(engine: Engine, more: (index: number) => Partial<GenerateRequest>): Promise<Answer[]> {
  const all: Answer[] = [];
  for (let first = 0; first < requests.length; first += TOGETHER) {
    const some = requests.slice(first, first + TOGETHER);
    all.push(...(await Promise.all(some.map((it, i) => answer(engine, { ...it, ...more(first + i) })))));
  }
  return all;
}

const bits = ({ tokens, logprobs }: Answer) => ({
  tokens,
  logprobs: [...new Uint32Array(Float32Array.from(logprobs).buffer)],
});

let plain: Promise<Answer[]> | undefined;
/** What the requests are answered without proposals. */
function plainAnswers(): Promise<Answer[]> {
  plain ??= withEngine(model, options, (engine) => answers(engine, () => ({})));
  return plain;
}

describe.each(Object.entries(DRAFTS))("draft: %s", (name, draft) => {
  test(`${PROMPTS} prompts, ${TOGETHER} at once, are answered as without, bit for bit`, async () => {
    const plain = await plainAnswers();
    await withEngine(model, { ...options, draft }, async (engine) => {
      for (let round = 0; round < ROUNDS; round++) {
        const before = engine.stats().draft;
        const got = await answers(engine, (i) => ({ speculation: { draftTokens: 1 + ((i + round) % 8) } }));
        expect(got.map(bits)).toEqual(plain.map(bits));
        const { proposed, accepted } = engine.stats().draft;
        expect(proposed).toBeGreaterThan(before.proposed);
        if (name === "always wrong") expect(accepted).toBe(0);
        if (name === "the model itself") expect(accepted).toBe(proposed);
        const used = got.map(({ last }) => last.usage?.draft ?? { proposed: 0, accepted: 0 });
        expect(used.reduce((sum, it) => sum + it.proposed, 0)).toBe(proposed - before.proposed);
        expect(used.reduce((sum, it) => sum + it.accepted, 0)).toBe(accepted - before.accepted);
        expect(engine.stats().pages.used).toBe(0);
      }
    });
    expect(device.gpu.memory.buffers).toBe(0);
  });
});

describe("one answer", () => {
  const repeating = { tokens: [3, 9, 4, 27, 5, 3, 9, 4], maxTokens: 40, ignoreEos: true } as const;

  test("proposals of the text itself change no token, whatever draws it", async () => {
    await withEngine(model, options, async (engine) => {
      for (const how of [
        { temperature: 0 },
        { temperature: 1, seed: 3 },
        { temperature: 0.6, topK: 7, topP: 0.8, seed: 4 },
        { temperature: 0, frequencyPenalty: 0.3, badWords: [[9, 4]], minTokens: 3 },
        { temperature: 0.9, repetitionPenalty: 1.2, typicalP: 0.9, logitBias: { 9: 2 }, seed: 5 },
      ]) {
        const want = await answer(engine, { ...repeating, ...how });
        const speculation = { promptLookup: true, draftTokens: 6 };
        const got = await answer(engine, { ...repeating, ...how, speculation });
        expect(bits(got)).toEqual(bits(want));
      }
      expect(engine.stats().draft.proposed).toBeGreaterThan(0);
    });
  });

  test("three tokens that a draft proposed by chance are distributed as without", async () => {
    const draws = FULL ? 6400 : 128;
    const cuts = { tokens: repeating.tokens, maxTokens: 3, ignoreEos: true, temperature: 1.2, topK: 3 };
    /** How often each of three tokens in a row came. */
    const counts = async (engine: Engine, speculation: GenerateRequest["speculation"]) => {
      const found = new Map<string, number>();
      for (let first = 0; first < draws; first += TOGETHER) {
        const some = Array.from({ length: TOGETHER }, () =>
          answer(engine, { ...cuts, ...(speculation === undefined ? {} : { speculation }) }),
        );
        for (const { tokens } of await Promise.all(some))
          found.set(tokens.join(" "), (found.get(tokens.join(" ")) ?? 0) + 1);
      }
      return found;
    };
    const fair = tinyFolder(withHead(tinyModel(shape), (value, i) => value + 0.2 * Math.sin(7 * i)));
    const random = new Random(8);
    onTestFinished(() => seeds.mockRestore());
    const seeds = vi.spyOn(Math, "random").mockImplementation(() => random.next());
    await withEngine(model, { ...options, draft: fair }, async (engine) => {
      const want = await counts(engine, false);
      const got = await counts(engine, { draftTokens: 2 });
      const cells = [...new Set([...want.keys(), ...got.keys()])];
      const of = (found: ReadonlyMap<string, number>) => cells.map((cell) => found.get(cell) ?? 0);
      expect(gTestP(of(want), of(got))).toBeGreaterThan(1e-4);
      const { proposed, accepted } = engine.stats().draft;
      expect(accepted).toBeGreaterThan(0);
      expect(accepted).toBeLessThan(proposed);
      expect((await answer(engine, { ...cuts, speculation: { draftTokens: 2 } })).last).not.toHaveProperty("seed");
    });
  });

  test("a seed gives the same answer with a draft as without, however many tokens are proposed", async () => {
    await withEngine(model, { ...options, draft: DRAFTS.good ?? model }, async (engine) => {
      for (const how of [
        { temperature: 0.9, seed: 3 },
        { temperature: 0.9, repetitionPenalty: 1.2, typicalP: 0.9, badWords: [[9, 4]], logitBias: { 9: 2 }, seed: 5 },
      ]) {
        const want = await answer(engine, { ...repeating, ...how, speculation: false });
        for (const speculation of [{}, { draftTokens: 3 }]) {
          const got = await answer(engine, { ...repeating, ...how, speculation });
          expect(bits(got)).toEqual(bits(want));
          expect(got.last.seed).toBe(how.seed);
        }
      }
      const { proposed, accepted } = engine.stats().draft;
      expect(accepted).toBeGreaterThan(0);
      expect(accepted).toBeLessThan(proposed);
    });
  });

  test("ends where it would without: at a stop id, at the last token, at the end of the context", async () => {
    await withEngine(model, { ...options, draft: model, context: 64 }, async (engine) => {
      const whole = await answer(engine, { ...repeating, temperature: 0, speculation: false });
      for (const at of [1, 4, 5, 11]) {
        const stop = whole.tokens[at] ?? Number.NaN;
        const end = whole.tokens.indexOf(stop) + 1;
        const stopped = await answer(engine, {
          ...repeating,
          temperature: 0,
          stopTokenIds: [stop],
          speculation: { draftTokens: 8 },
        });
        expect([stopped.tokens, stopped.last.finishReason]).toEqual([whole.tokens.slice(0, end), "stop"]);
        expect(stopped.last.usage?.completionTokens).toBe(end);
        const short = await answer(engine, {
          ...repeating,
          temperature: 0,
          maxTokens: at,
          speculation: { draftTokens: 8 },
        });
        expect([short.tokens, short.last.finishReason]).toEqual([whole.tokens.slice(0, at), "length"]);
        expect(short.last.usage?.draft?.proposed ?? 0).toBeLessThan(at);
      }
      const toTheEnd = await answer(engine, {
        tokens: repeating.tokens,
        temperature: 0,
        ignoreEos: true,
        speculation: { draftTokens: 7 },
      });
      expect(toTheEnd.tokens).toHaveLength(64 - repeating.tokens.length);
      expect(engine.stats().pages.used).toBe(0);
    });
  });

  test("a request that leaves in the middle holds no page, of neither model, and the next answer is right", async () => {
    await withEngine(model, { ...options, draft: DRAFTS.good ?? model }, async (engine) => {
      const request = { ...repeating, temperature: 0, speculation: { draftTokens: 5 } };
      const want = await answer(engine, { ...request, speculation: false });
      for (const parts of [0, 1, 2, 7]) {
        const stop = new AbortController();
        const begun = engine.generate({ ...request, signal: stop.signal });
        for (let i = 0; i < parts; i++) await begun.next();
        const rest = begun.next().catch(() => undefined);
        stop.abort();
        await rest;
        await begun.return();
        expect(bits(await answer(engine, request))).toEqual(bits(want));
        expect([engine.stats().pages.used, engine.draft?.usedPages]).toEqual([0, 0]);
      }
    });
  });

  test("where pages run out, proposals give way, and answers stay the same", async () => {
    const some = requests.slice(0, 4).map((request) => ({ ...request, maxTokens: 40 }));
    const want = await withEngine(model, options, (engine) => Promise.all(some.map((it) => answer(engine, it))));
    await withEngine(model, { ...options, draft: DRAFTS.good ?? model, context: 80 }, async ({ plan }) => {
      const kvMemory = 8 * 16 * plan.kvBytesPerToken;
      await withEngine(model, { ...options, draft: DRAFTS.good ?? model, context: 80, kvMemory }, async (small) => {
        const all = some.map((it) => answer(small, { ...it, speculation: { draftTokens: 4 } }));
        expect((await Promise.all(all)).map(bits)).toEqual(want.map(bits));
        expect(small.stats().preemptions).toBeGreaterThan(0);
        expect([small.stats().pages.used, small.draft?.usedPages]).toEqual([0, 0]);
      });
    });
  });

  test("a draft is waited for at most twice a step, however many tokens it proposes", async () => {
    const cuts = { topK: 7, temperature: 0.8 };
    const kinds = [{ temperature: 0 }, { ...cuts, seed: 3 }, cuts, { temperature: 0, logitBias: { 9: 2 } }];
    await withEngine(model, { ...options, draft: model }, async (engine) => {
      for (const how of kinds) {
        const counts = { ...engine.draft?.started.runner.counts };
        await answer(engine, { ...repeating, ...how, speculation: { draftTokens: 8 } });
        const { waits = 0, writes = 0 } = engine.draft?.started.runner.counts ?? {};
        const steps = Math.ceil(repeating.maxTokens / 9); // its own proposals are all taken
        expect(waits - (counts.waits ?? 0)).toBeLessThanOrEqual(2 * steps + 1); // and the prompt
        expect(writes - (counts.writes ?? 0)).toBeLessThanOrEqual(2 * (2 * steps + 1));
      }
    });
  });

  test("a draft of another vocabulary is refused by name", async () => {
    const other = tinyFolder(tinyModel({ ...shape, vocab: VOCAB + 1 }));
    await expect(withEngine(model, { ...options, draft: other }, async () => {})).rejects.toThrow(
      `draft: memory: has ${VOCAB + 1} tokens, the target ${VOCAB}, expected the target's vocabulary`,
    );
    expect(device.gpu.memory.buffers).toBe(0);
  });

  test("the model as its own draft is always right, at every place, to the end", { timeout: 600_000 }, async () => {
    const long = 1000;
    const own = tinyFolder(tinyModel({ ...shape, context: long + 16 }));
    await withEngine(own, { device, draft: own }, async (engine) => {
      const { last } = await answer(engine, {
        tokens: [1, 2, 3],
        maxTokens: long,
        temperature: 0,
        ignoreEos: true,
        speculation: { draftTokens: 7 },
      });
      const { proposed, accepted, byPosition } = engine.stats().draft;
      expect([last.usage?.completionTokens, accepted]).toEqual([long, proposed]);
      expect(byPosition).toHaveLength(7);
      expect(proposed).toBeGreaterThan((long * 6) / 7 - 8);
    });
  });
});
