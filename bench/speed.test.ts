import { describe, expect, test } from "vitest";
import type { GenerateRequest, Part } from "../engine/types.ts";
import { Random } from "../kernels/testbed.ts";
import { type MeasuredEngine, measureSpeed, type SpeedOptions } from "./speed.ts";
import type { SpeedTest } from "./speedTest.ts";

const STEP_MS = 10;
const ROWS = 64;

interface Sequence {
  left: number;
  readonly request: GenerateRequest;
  readonly cachedTokens: number;
  made: number;
  readonly parts: Part[];
  wake: () => void;
}

/** An engine whose steps take 10 ms of a clock of its own: generating sequences first, then prompts, up to 64 rows. */
class FakeEngine implements MeasuredEngine {
  time = 0;
  readonly prompts: string[] = [];
  readonly wishes: GenerateRequest["speculation"][] = [];
  readonly counts = {
    dispatches: 0,
    submits: 0,
    writes: 0,
    waits: 0,
    bindGroups: 0,
    bytesRead: 0,
    encodeMs: 0,
    lost: 0,
  };
  preemptions = 0;
  /** Called at each request; returns what it says was cached of the prompt. */
  cached = (_: readonly number[]): number | undefined => undefined;
  /** Tokens after which a request fails. */
  failsAt = Number.POSITIVE_INFINITY;
  #running: Sequence[] = [];
  #seen = new Set<string>();
  #loop: Promise<void> | undefined;

  stats() {
    return { device: { ...this.counts }, preemptions: this.preemptions };
  }

  async *generate(request: GenerateRequest): AsyncGenerator<Part> {
    const tokens = request.tokens ?? [];
    this.prompts.push(tokens.join());
    this.wishes.push(request.speculation);
    const cachedTokens = this.cached(tokens) ?? this.#shared(tokens);
    const sequence: Sequence = {
      left: tokens.length - cachedTokens,
      request,
      cachedTokens,
      made: 0,
      parts: [],
      wake: () => {},
    };
    this.#running.push(sequence);
    this.#loop ??= this.#run();
    for (let made = 0; made < (request.maxTokens ?? 0); made++) {
      if (made >= this.failsAt) throw new Error("the device was lost");
      while (sequence.parts.length === 0) {
        await new Promise<void>((resolve) => {
          sequence.wake = resolve;
        });
      }
      const part = sequence.parts.shift();
      if (part !== undefined) yield part;
    }
  }

  /** Whole pages of 16 that an earlier prompt began with, one token at least left out. */
  #shared(tokens: readonly number[]): number {
    let pages = 0;
    while ((pages + 1) * 16 < tokens.length && this.#seen.has(tokens.slice(0, (pages + 1) * 16).join())) pages++;
    for (let end = 16; end <= tokens.length; end += 16) this.#seen.add(tokens.slice(0, end).join());
    return pages * 16;
  }

  async #run(): Promise<void> {
    await undefined;
    while (this.#running.length > 0) {
      this.time += STEP_MS;
      this.counts.submits++;
      this.counts.dispatches += 13;
      let rows = ROWS;
      for (const sequence of [...this.#running].sort((a, b) => Number(a.left > 1) - Number(b.left > 1))) {
        const count = Math.min(sequence.left, rows);
        rows -= count;
        sequence.left -= count;
        if (sequence.left === 0) this.#draw(sequence);
      }
      await new Promise((resolve) => setImmediate(resolve)); // readers come first, as after a read-back
    }
    this.#loop = undefined;
  }

  #draw(sequence: Sequence): void {
    const { request, cachedTokens } = sequence;
    sequence.made++;
    sequence.left = 1;
    this.counts.bytesRead += 8;
    const last = sequence.made === request.maxTokens;
    const usage = { promptTokens: request.tokens?.length ?? 0, completionTokens: sequence.made, cachedTokens };
    sequence.parts.push({
      choice: 0,
      index: sequence.made - 1,
      text: "",
      token: 1,
      logprob: 0,
      finishReason: last ? "length" : null,
      ...(last ? { usage } : {}),
    });
    if (last) this.#running = this.#running.filter((it) => it !== sequence);
    sequence.wake();
  }
}

function measureAll(engine: FakeEngine, wanted: readonly Partial<SpeedTest>[], options: Partial<SpeedOptions>) {
  const tests = wanted.map((it): SpeedTest => ({ kind: "tg", tokens: 8, depth: 0, batch: 1, ...it }));
  return measureSpeed(engine, tests, {
    repetitions: 3,
    vocabulary: 1000,
    rowsPerStep: ROWS,
    random: new Random(1),
    now: () => engine.time,
    ...options,
  });
}

async function measure(engine: FakeEngine, wanted: Partial<SpeedTest>, options: Partial<SpeedOptions> = {}) {
  const [row] = await measureAll(engine, [wanted], options);
  if (row === undefined) throw new RangeError("no row");
  return row;
}

describe("tests by turns", () => {
  test("with and without proposals, of the same text, which may be found again", async () => {
    const engine = new FakeEngine();
    const speculation = { draftTokens: 3 };
    const text = Array.from({ length: 40 }, (_, i) => i);
    const rows = await measureAll(engine, [{}, { drafted: true }], { speculation, text, repetitions: 2 });
    expect(rows.map(({ name, error, repetitions }) => [name, error, repetitions.length])).toEqual([
      ["tg8", null, 2],
      ["tg8+draft", null, 2],
    ]);
    expect(engine.wishes).toEqual([false, speculation, false, speculation, false, speculation]);
    expect(new Set(engine.prompts)).toEqual(new Set([text.join()]));
    expect(rows[0]?.repetitions[1]?.cachedTokens).toBe(32);
  });

  test("one that fails leaves the others to go on", async () => {
    const rows = await measureAll(new FakeEngine(), [{ batch: 200, tokens: 1 }, {}], {});
    expect(rows.map(({ error }) => error === null)).toEqual([false, true]);
  });
});

describe("a prompt test", () => {
  test("times the prompt to its first token, after a warm-up", async () => {
    const engine = new FakeEngine();
    const row = await measure(engine, { kind: "pp", tokens: 128 });
    expect(row).toMatchObject({ name: "pp128", error: null });
    expect(row.repetitions.map(({ milliseconds }) => milliseconds)).toEqual([20, 20, 20]);
    expect(row.repetitions[0]).toMatchObject({ tokensPerSecond: 6400, firstTokenMs: [20], submits: 2, dispatches: 26 });
    expect(engine.prompts).toHaveLength(4);
  });

  test("no two prompts are alike, and computed tokens are all there are", async () => {
    const engine = new FakeEngine();
    const row = await measure(engine, { kind: "pp", tokens: 128, batch: 4 }, { repetitions: 5 });
    expect(new Set(engine.prompts).size).toBe(4 * 6);
    expect(row.repetitions.map(({ computedTokens, cachedTokens }) => [computedTokens, cachedTokens])).toEqual(
      Array.from({ length: 5 }, () => [512, 0]),
    );
  });

  test("computes its depth before and times what comes behind it", async () => {
    const engine = new FakeEngine();
    const row = await measure(engine, { kind: "pp", tokens: 64, depth: 256 });
    expect(row.name).toBe("pp64@d256");
    expect(row.error).toBeNull();
    expect(
      row.repetitions.map(({ milliseconds, computedTokens, cachedTokens }) => [
        milliseconds,
        computedTokens,
        cachedTokens,
      ]),
    ).toEqual(Array.from({ length: 3 }, () => [10, 64, 0]));
  });

  test("counts the part of a page that is computed again behind a depth of no whole pages", async () => {
    const row = await measure(new FakeEngine(), { kind: "pp", tokens: 32, depth: 40 });
    expect(row.repetitions[0]).toMatchObject({ computedTokens: 40, cachedTokens: 0, tokensPerSecond: 4000 });
  });

  test("fails its row where the pages of its depth are gone", async () => {
    const engine = new FakeEngine();
    engine.cached = () => 0;
    expect(await measure(engine, { kind: "pp", tokens: 64, depth: 256 })).toMatchObject({
      repetitions: [],
      error: expect.stringContaining(
        "0 of 320 prompt tokens were cached before the prompt, expected 256; try a larger --kv-memory",
      ),
    });
  });
});

describe("a generation test", () => {
  test("times steps only: neither the prompt nor the first token", async () => {
    const row = await measure(new FakeEngine(), { tokens: 8, depth: 256 });
    expect(row.name).toBe("tg8@d256");
    expect(row.repetitions[0]).toMatchObject({
      milliseconds: 80,
      tokensPerSecond: 100,
      computedTokens: 256,
      firstTokenMs: [40],
      betweenTokensMs: Array.from({ length: 8 }, () => 10),
      submits: 8,
      dispatches: 8 * 13,
      bytesBack: 64,
    });
  });

  test("counts what all requests of a batch make together, once the last of them generates", async () => {
    const row = await measure(new FakeEngine(), { tokens: 8, depth: 128, batch: 4 });
    expect(row.error).toBeNull();
    for (const { tokensPerSecond, betweenTokensMs, milliseconds, submits } of row.repetitions) {
      expect(milliseconds).toBe(80);
      expect(tokensPerSecond).toBe(400);
      expect(betweenTokensMs).toHaveLength(32);
      expect(submits).toBe(8);
    }
  });

  test("asks greedily and past the end of text", async () => {
    const engine = new FakeEngine();
    const asked: GenerateRequest[] = [];
    const { generate } = engine;
    engine.generate = (request) => {
      asked.push(request);
      return generate.call(engine, request);
    };
    await measure(engine, {}, { repetitions: 1 });
    for (const { temperature, ignoreEos } of asked) expect([temperature, ignoreEos]).toEqual([0, true]);
  });
});

describe("a row fails", () => {
  test("where a prompt met a cache, and names how much", async () => {
    const engine = new FakeEngine();
    engine.cached = () => (engine.prompts.length > 2 ? 48 : 0);
    const row = await measure(engine, { kind: "pp", tokens: 128 });
    expect(row.error).toBe(
      "prefix cache: 48 of 128 prompt tokens were cached before the prompt, expected 0; try another --seed",
    );
    expect(row.repetitions).toHaveLength(1);
  });

  test("where a request fails in the middle", async () => {
    const engine = new FakeEngine();
    engine.failsAt = 3;
    const row = await measure(engine, {});
    expect(row).toMatchObject({ repetitions: [], error: "the device was lost" });
  });

  test("where an answer is shorter than asked for", async () => {
    const engine = new FakeEngine();
    const { generate } = engine;
    engine.generate = async function* (request) {
      for await (const part of generate.call(engine, { ...request, maxTokens: 4 })) yield part;
    };
    expect((await measure(engine, {})).error).toContain("ended after 4 tokens of a prompt of 1, expected 10 of 1");
  });

  test("where requests gave their pages up", async () => {
    const engine = new FakeEngine();
    engine.cached = () => {
      engine.preemptions++;
      return 0;
    };
    expect((await measure(engine, {})).error).toContain("requests gave their pages up 1 times, expected never");
  });

  test("where a batch is never whole", async () => {
    const engine = new FakeEngine();
    // The second request begins after the first has ended.
    const { generate } = engine;
    let last = Promise.resolve();
    engine.generate = async function* (request) {
      const before = last;
      let end = () => {};
      last = new Promise((resolve) => {
        end = resolve;
      });
      await before;
      yield* generate.call(engine, request);
      end();
    };
    expect((await measure(engine, { batch: 2 })).error).toContain("of 2 requests one had ended before the last began");
  });

  test("but a stop is no row: its reason is thrown", async () => {
    const stop = new AbortController();
    const engine = new FakeEngine();
    const onRepetition = (_: SpeedTest, i: number) => {
      if (i === 1) stop.abort(new Error("stopped"));
    };
    await expect(measure(engine, {}, { signal: stop.signal, onRepetition })).rejects.toThrow("stopped");
  });
});
