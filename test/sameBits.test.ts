/** The same tokens give the same bits: alone, among others, in any chunks, token by token, from shared pages, after waiting. */
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Folder } from "../device/files.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/options.ts";
import { logitsOf } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, type TinyShape, tinyFolder, tinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
const VOCAB = 97;

const device = await sharedDevice();
const options: EngineOptions = { device, kvType: "f16" };
const model = tinyFolder(tinyModel({ vocab: VOCAB, context: 512 }));

const bitsOf = (values: ArrayLike<number>) => new Uint32Array(Float32Array.from(values).buffer);
/** Rows as numbers that are equal only bit for bit; short, so that a failure can be read. */
function firstOther(got: readonly Float32Array[], want: readonly Float32Array[]): string {
  if (got.length !== want.length) return `${got.length} rows, expected ${want.length}`;
  for (const [t, row] of want.entries()) {
    const [is, should] = [bitsOf(got[t] ?? []), bitsOf(row)];
    const v = should.findIndex((bits, i) => is[i] !== bits);
    if (v >= 0 || is.length !== should.length) return `token ${t}, logit ${v}: ${got[t]?.[v]}, expected ${row[v]}`;
  }
  return "same";
}

/** Generated log-probabilities against those of the same ids scored in one pass. */
async function generatedAsScored(engine: Engine, prompt: readonly number[], count: number): Promise<string> {
  const request = { tokens: prompt, maxTokens: count, temperature: 0, ignoreEos: true };
  const { tokens, logprobs } = await answer(engine, request);
  const scored = await engine.score({ tokens: [...prompt, ...tokens] });
  const want = scored.logprobs.slice(prompt.length).map((value) => value ?? Number.NaN);
  return firstOther([Float32Array.from(logprobs)], [Float32Array.from(want)]);
}

test("latents and experts: at once, in steps, and among others", async () => {
  const path = new URL("./fixtures/families/deepseek_v3/", import.meta.url).pathname;
  await withEngine(path, { ...options, context: 96 }, async (engine) => {
    const prompt = randomTokens(3, 41, 256);
    const alone = await logitsOf(engine, prompt);
    expect(await generatedAsScored(engine, prompt, 12)).toBe("same");
    const [among] = await Promise.all([logitsOf(engine, prompt), logitsOf(engine, randomTokens(4, 19, 256))]);
    expect(firstOther(among, alone)).toBe("same");
    expect(firstOther(await logitsOf(engine, prompt.slice(0, 7)), alone.slice(0, 7))).toBe("same");
  });
});

test("keys and values as int8: at once, in steps, among others and from shared pages", async () => {
  // Two KV heads of a length that is no power of two, and pages that are not full.
  const folder = tinyFolder(tinyModel({ vocab: VOCAB, heads: 4, kvHeads: 2, headDim: 40, context: 128 }));
  const int8: EngineOptions = { device, kvType: "int8" };
  const prompt = randomTokens(7, 75, VOCAB);
  const alone = await withEngine(folder, int8, (engine) => logitsOf(engine, prompt));
  await withEngine(folder, { ...int8, rowsPerStep: 7 }, async (engine) => {
    const [among] = await Promise.all([logitsOf(engine, prompt), logitsOf(engine, randomTokens(4, 19, VOCAB))]);
    expect(firstOther(among, alone)).toBe("same");
    expect(await generatedAsScored(engine, prompt.slice(0, 70), 12)).toBe("same");
  });
});

describe("one model", () => {
  /** Past one attention split and off every border of pages and chunks. */
  const prompt = randomTokens(7, 281, VOCAB);
  const short = prompt.slice(0, 75);
  let engine: Engine;
  let alone: Float32Array[];
  let shortAlone: Float32Array[];
  beforeAll(async () => {
    engine = await Engine.load(model, options);
    alone = await logitsOf(engine, prompt);
    shortAlone = await logitsOf(engine, short);
  });
  afterEach(() => expectSums(engine));
  afterAll(() => engine.close());

  test("the logits of a token do not depend on what comes after it", () => {
    expect(alone).toHaveLength(281);
    expect(alone.every((row) => row.every((value) => Number.isFinite(value)))).toBe(true);
    expect(firstOther(shortAlone, alone.slice(0, 75))).toBe("same");
  });

  test("among eight others, ragged, that come and go", async () => {
    const lengths = [1, 5, 300, 16, 17, 33, 64, 2];
    const others = lengths.map((length, i) => logitsOf(engine, randomTokens(i, length, VOCAB)));
    const twice = [logitsOf(engine, short), logitsOf(engine, short)];
    const late = Promise.all(twice);
    const answers = lengths.map((length, i) =>
      answer(engine, { tokens: randomTokens(i, length, VOCAB), maxTokens: 5 + i, temperature: 1, seed: i }),
    );
    expect((await late).map((rows) => firstOther(rows, shortAlone))).toEqual(["same", "same"]);
    const together = await Promise.all(others);
    await Promise.all(answers);
    for (const [i, length] of lengths.entries()) {
      expect(firstOther(together[i] ?? [], await logitsOf(engine, randomTokens(i, length, VOCAB)))).toBe("same");
    }
  });

  test("answers among others are the answers alone", async () => {
    const requests = [1, 5, 250, 16, 17, 33].map((length, i) => ({
      tokens: randomTokens(20 + i, length, VOCAB),
      maxTokens: 12,
      temperature: i % 2,
      seed: i,
      logprobs: i === 4 ? 2 : 0,
      ignoreEos: true,
    }));
    const together = await Promise.all(requests.map((request) => answer(engine, request)));
    for (const [i, request] of requests.entries()) {
      const { tokens, logprobs } = await answer(engine, request);
      expect(together[i]?.tokens).toEqual(tokens);
      expect(firstOther([Float32Array.from(together[i]?.logprobs ?? [])], [Float32Array.from(logprobs)])).toBe("same");
    }
  });

  test("two that decode while the end of a third one's prompt makes the step a power of two", async () => {
    // 2 decoded tokens + 2 of a prompt: four rows with three samples, which are not the first three.
    const request = (seed: number, length: number, maxTokens: number) => ({
      tokens: randomTokens(seed, length, VOCAB),
      maxTokens,
      temperature: 0,
      ignoreEos: true,
    });
    const [a, b, c] = [request(31, 4, 16), request(32, 4, 16), request(33, 2, 3)];
    const first = engine.generate(a);
    await Promise.all([first.next(), answer(engine, b), answer(engine, c), drain(first)]);
    const running = engine.generate(a);
    const alongside = answer(engine, b);
    await running.next();
    const third = await answer(engine, c);
    await Promise.all([drain(running), alongside]);
    expect(third.tokens).toEqual((await answer(engine, c)).tokens);
    const scored = await engine.score({ tokens: [...c.tokens, ...third.tokens] });
    const want = scored.logprobs.slice(2).map((value) => value ?? Number.NaN);
    expect(firstOther([Float32Array.from(third.logprobs)], [Float32Array.from(want)])).toBe("same");
  });

  test("token by token through the cache, over the border of a split", async () => {
    expect(await generatedAsScored(engine, prompt.slice(0, 246), 24)).toBe("same");
    expect(await generatedAsScored(engine, prompt.slice(0, 1), 40)).toBe("same");
  });

  test("from pages that an earlier request left", async () => {
    const request = { tokens: prompt.slice(0, 100), maxTokens: 8, temperature: 0, ignoreEos: true };
    const first = await answer(engine, request);
    const second = await answer(engine, request);
    expect(second.last.usage?.cachedTokens).toBe(96);
    expect(second.tokens).toEqual(first.tokens);
    expect(firstOther([Float32Array.from(second.logprobs)], [Float32Array.from(first.logprobs)])).toBe("same");
    expect(await generatedAsScored(engine, prompt.slice(0, 97), 4)).toBe("same");
  });

  test.each([1, 2, 3, 5, 7, 64])("in chunks of %i", async (rowsPerStep) => {
    const tokens = rowsPerStep < 7 && !FULL ? prompt.slice(0, 40) : prompt;
    await withEngine(model, { ...options, rowsPerStep }, async (chunked) => {
      expect(firstOther(await logitsOf(chunked, tokens), alone.slice(0, tokens.length))).toBe("same");
    });
  });

  test("with the border of the first chunk at any token", async () => {
    // One that comes before takes some of the 64 rows of the step.
    for (let rows = 1; rows < 64; rows += FULL ? 1 : 15) {
      const before = randomTokens(1, rows, VOCAB);
      const [, logits] = await Promise.all([engine.score({ tokens: before }), logitsOf(engine, short)]);
      expect(`${rows}: ${firstOther(logits, shortAlone)}`).toBe(`${rows}: same`);
      // No two of these begin alike, so that none finds its pages.
      const own = [rows, ...short.slice(1)];
      const [, scored] = await Promise.all([
        answer(engine, { tokens: [rows, ...before.slice(1)], maxTokens: 1, temperature: 0 }),
        generatedAsScored(engine, own, 2),
      ]);
      expect(`${rows}: ${scored}`).toBe(`${rows}: same`);
    }
  });

  test("after giving its pages up and being computed again", async () => {
    const requests = [1, 2, 3, 4].map((seed) => ({
      tokens: randomTokens(seed, 20, VOCAB),
      maxTokens: 40,
      temperature: seed % 2,
      seed,
      ignoreEos: true,
    }));
    const want: Awaited<ReturnType<typeof answer>>[] = [];
    for (const request of requests) want.push(await answer(engine, request));
    const kvMemory = 8 * 16 * engine.plan.kvBytesPerToken;
    await withEngine(model, { ...options, kvMemory }, async (small) => {
      const got = await Promise.all(requests.map((request) => answer(small, request)));
      expect(small.stats().preemptions).toBeGreaterThan(0);
      expect(small.stats().pages.used).toBe(0);
      for (const [i, { tokens, logprobs }] of got.entries()) {
        expect(tokens).toEqual(want[i]?.tokens);
        expect(firstOther([Float32Array.from(logprobs)], [Float32Array.from(want[i]?.logprobs ?? [])])).toBe("same");
      }
      // A score and an answer that cannot both be there: each position is told once, in order.
      const positions: number[] = [];
      const rows: Float32Array[] = [];
      const onLogits = (position: number, logits: Float32Array) => {
        positions.push(position);
        rows.push(logits);
      };
      await Promise.all([
        answer(small, { tokens: randomTokens(5, 60, VOCAB), maxTokens: 50, temperature: 0, ignoreEos: true }),
        small.score({ tokens: short, onLogits }),
      ]);
      expect(positions).toEqual(short.map((_, i) => i));
      expect(firstOther(rows, shortAlone)).toBe("same");
    });
  });
});

describe("32 at once, ragged, some of which begin alike", () => {
  const shape = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, intermediate: 32, vocab: VOCAB, context: 640 } as const;
  const folder = tinyFolder(tinyModel(shape));
  const LONG = new Map([
    [7, 600],
    [18, 257],
    [29, 431],
  ]);
  const requests = Array.from({ length: 32 }, (_, i) => ({
    // Of one seed, a shorter prompt is the beginning of a longer one.
    tokens: randomTokens(i % 11, LONG.get(i) ?? 1 + ((37 * i) % 120), VOCAB),
    maxTokens: 12,
    temperature: i % 2,
    seed: i,
    ignoreEos: true,
  }));
  /** Of 16 tokens: keys and values in f16, of one layer with one head of 16. */
  const PAGE_BYTES = 16 * 2 * 16 * 2;
  const scored = requests.map(({ tokens }) => tokens.slice(0, 50));
  type Answers = Awaited<ReturnType<typeof answer>>[];
  let alone: Answers;
  let logits: Float32Array[][];
  beforeAll(async () => {
    [alone, logits] = await withEngine(folder, options, async (engine) => {
      const [answers, rows]: [Answers, Float32Array[][]] = [[], []];
      for (const request of requests) answers.push(await answer(engine, request));
      for (const tokens of scored) rows.push(await logitsOf(engine, tokens));
      return [answers, rows];
    });
  });
  const [ENOUGH, FEW] = [400, 48]; // pages: all together need 200 or so, and the longest 39
  const cases: [name: string, more: EngineOptions, pages: number][] = [
    ["with room for all", {}, ENOUGH],
    ["in few rows a step", { rowsPerStep: 7 }, ENOUGH],
    ["where pages run out", {}, FEW],
    ["with proposals", { draft: folder }, ENOUGH],
    ["in some rows a step, with proposals, where pages run out", { draft: folder, rowsPerStep: 24 }, FEW],
  ];
  // The last one has all in it.
  test.each(FULL ? cases : [...cases.slice(0, 1), ...cases.slice(-1)])("%s", async (_, more, pages) => {
    await withEngine(folder, { ...options, ...more, kvMemory: pages * PAGE_BYTES }, async (engine) => {
      for (const round of ["first", "with pages of the first"]) {
        const [answers, rows] = await Promise.all([
          Promise.all(requests.map((request, i) => answer(engine, { ...request, speculation: proposals(more, i) }))),
          Promise.all(scored.slice(0, 4).map((tokens) => logitsOf(engine, tokens))),
        ]);
        answers.forEach(({ tokens, logprobs }, i) => {
          expect(tokens, `${round}: ${i}`).toEqual(alone[i]?.tokens);
          const want = Float32Array.from(alone[i]?.logprobs ?? []);
          expect(`${i}: ${firstOther([Float32Array.from(logprobs)], [want])}`).toBe(`${i}: same`);
        });
        rows.forEach((each, i) => {
          expect(`${i}: ${firstOther(each, logits[i] ?? [])}`).toBe(`${i}: same`);
        });
      }
      const { preemptions, draft, cachedTokens } = engine.stats();
      expect(preemptions > 0).toBe(pages === FEW);
      expect(draft.proposed > 0).toBe(more.draft !== undefined);
      expect(cachedTokens).toBeGreaterThan(0);
    });
  });
  const proposals = ({ draft }: EngineOptions, i: number) =>
    draft === undefined ? false : { draftTokens: 1 + (i % 4) };

  test("and scored in batches of 2 to 32", async () => {
    await withEngine(folder, options, async (engine) => {
      for (let size = 2; size <= 32; size += FULL ? 1 : 10) {
        const rows = await Promise.all(scored.slice(32 - size).map((tokens) => logitsOf(engine, tokens)));
        rows.forEach((each, i) => {
          const at = 32 - size + i;
          expect(`${size}: ${at}: ${firstOther(each, logits[at] ?? [])}`).toBe(`${size}: ${at}: same`);
        });
      }
    });
  });
});

async function drain(parts: AsyncGenerator): Promise<void> {
  while ((await parts.next()).done !== true);
}

describe("any model", () => {
  // SwiftShader compiles each layout anew: two of them here, all where the full suite runs.
  const layouts = FULL ? (["f32", "f16", "bf16", "affine4", "affine8"] as const) : (["f32", "affine4"] as const);
  const anyShape = fc
    .record({
      seed: fc.nat(1000),
      layout: fc.constantFrom(...layouts),
      layers: fc.integer({ min: 1, max: 3 }),
      hidden: fc.constantFrom(32, 64, 96, 160),
      kvHeads: fc.integer({ min: 1, max: 3 }),
      group: fc.integer({ min: 1, max: 5 }),
      headDim: fc.constantFrom(24, 32, 40, 64, 80),
      intermediate: fc.constantFrom(32, 96, 160, 224),
      vocab: fc.integer({ min: 3, max: 300 }),
      tied: fc.boolean(),
      bias: fc.boolean(),
      scales: fc.constantFrom("F16", "BF16", "F32"),
    })
    .map(({ group, kvHeads, headDim, layout, ...rest }): TinyShape => {
      // Groups of 32 must divide heads · headDim.
      const heads = kvHeads * (layout.startsWith("affine") && headDim % 32 !== 0 ? 4 : group);
      return { ...rest, layout, kvHeads, heads, headDim, context: 384 };
    });
  const anyRun = fc.record({
    shape: anyShape,
    kvType: FULL ? fc.constantFrom("f16" as const, "f32" as const, "int8" as const) : fc.constant("f16" as const),
    rowsPerStep: fc.constantFrom(1, 2, 3, 5, 7, 16, 63),
    length: fc.oneof(
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 70 }) },
      { weight: 1, arbitrary: fc.integer({ min: 240, max: 300 }) },
    ),
  });

  test("of any shape and layout, in any chunks", { timeout: 600_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(anyRun, async ({ shape, kvType, rowsPerStep, length }) => {
        const folder: Folder = tinyFolder(tinyModel(shape));
        const vocab = shape.vocab ?? VOCAB;
        const tokens = randomTokens(length, length, vocab);
        const want = await withEngine(folder, { device, kvType }, (engine) => logitsOf(engine, tokens));
        await withEngine(folder, { device, kvType, rowsPerStep }, async (engine) => {
          const [got] = await Promise.all([
            logitsOf(engine, tokens),
            answer(engine, { tokens: randomTokens(3, 9, vocab), maxTokens: 6, temperature: 1, seed: 1 }),
          ]);
          expect(firstOther(got, want)).toBe("same");
          expect(await generatedAsScored(engine, tokens.slice(0, 20), 10)).toBe("same");
        });
        expect(device.gpu.memory.buffers).toBe(0);
      }),
      { numRuns: FULL ? 60 : 3, seed: 20251125 },
    );
  });
});
