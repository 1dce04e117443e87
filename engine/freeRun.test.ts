/** Free runs on a runner that only counts: who is run freely, how far ahead, and what becomes of what was computed too much. */
import { describe, expect, test } from "vitest";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import { pagesOf } from "../test/schedulerPlay.ts";
import type { Batch } from "./batch.ts";
import { FreeRuns, MOST_STEPS, type StepsAhead, WindowLength } from "./freeRun.ts";
import { GREEDY } from "./samplingParams.ts";
import { type Schedule, Scheduler } from "./scheduler.ts";
import { type RowOutput, Sequence, type SequenceOptions } from "./sequence.ts";

const LIMITS = { rows: 64, scoreRows: 64, sequences: 4 };
const output = (token: number): RowOutput => ({ token, logprob: -1, top: [], finite: true });

/** A runner that draws 100, 101, …, a window at a time as the test lets it. */
class Counting implements StepsAhead {
  readonly asked: { first: number; steps: number }[] = [];
  readonly #waiting: { resolve: () => void; reject: (reason: Error) => void }[] = [];
  prepare(): Promise<void> {
    return Promise.resolve();
  }
  runAhead({ samples }: Batch, first: number, steps: number): Promise<readonly (readonly RowOutput[])[]> {
    this.asked.push({ first, steps });
    const outputs = Array.from({ length: steps }, (_, i) => samples.map(() => output(100 + first + i)));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve: () => resolve(outputs), reject });
    });
  }
  /** Lets the oldest window arrive, or fail. */
  async arrive(failure?: Error): Promise<void> {
    await quiet();
    const next = this.#waiting.shift();
    if (failure === undefined) next?.resolve();
    else next?.reject(failure);
    await quiet();
  }
}

/** Until nothing more follows by itself. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 20; i++) await undefined;
}

function setUp({ pages = 40, window = 4, off = new Set<string>() } = {}) {
  const pool = pagesOf([[pages, null]]);
  const scheduler = new Scheduler(pool, LIMITS);
  const runner = new Counting();
  return { pool, scheduler, runner, runs: new FreeRuns(runner, scheduler, { off, window, measured: () => undefined }) };
}

/** A request for `length` tokens, prompt included, behind a prompt of 10. */
function sequenceOf(
  length: number,
  more: Partial<SequenceOptions> = {},
  ends: (token: number) => boolean = () => false,
) {
  const sequence: Sequence = new Sequence({
    tokens: Array.from({ length: 10 }, (_, i) => i),
    kind: "generate",
    sampling: GREEDY,
    top: 0,
    logits: false,
    experts: false,
    ropeVariant: () => 0,
    ending: { length, stopIds: new Set() },
    onOutput: ({ token }) => {
      sequence.tokens.push(token);
      return ends(token) || sequence.tokens.length >= length;
    },
    onError: () => undefined,
    ...more,
  });
  return sequence;
}

/** The next schedule, once prompts are read and each has drawn a token. */
function decoding(scheduler: Scheduler): Schedule {
  for (let schedule = scheduler.next(); schedule !== undefined; schedule = scheduler.next()) {
    if (schedule.entries.every(({ sequence, count }) => count === 1 && sequence.tokens.length > 10)) return schedule;
    for (const { sequence } of schedule.entries) sequence.tokens.push(50);
    scheduler.commit(schedule, new Set());
  }
  throw new Error("nobody decodes");
}

/** Of a batch what the counting runner looks at. */
const batchOf = ({ entries, kind }: Schedule): Batch => ({
  bucket: {
    rows: entries.length,
    samples: entries.length,
    oneRowEach: true,
    everyRow: true,
    splits: 0,
    kind,
    top: 0,
    routes: false,
    adjusted: false,
    verify: false,
  },
  rows: entries.length,
  words: new Uint32Array(),
  lists: new Uint32Array(),
  copies: [],
  longest: 0,
  samples: entries.map(({ sequence }) => ({ sequence, position: 0, token: 0, target: 0, drafted: NONE })),
});

describe("a free run", () => {
  test("has two windows on their way, and stops at the last token that is asked for", async () => {
    const { pool, scheduler, runner, runs } = setUp();
    const sequence = sequenceOf(25);
    scheduler.add(sequence);
    const schedule = decoding(scheduler);
    const steps = runs.steps(schedule);
    expect(steps).toBe(14);
    expect(sequence.pages).toHaveLength(Math.ceil(24 / PAGE_TOKENS));
    const run = runs.run(schedule, batchOf(schedule), steps);
    for (let arrived = 0; arrived < 4; arrived++) {
      await runner.arrive();
      expect(runner.asked).toHaveLength(Math.min(arrived + 3, 4));
    }
    await run;
    expect(runner.asked).toEqual([0, 4, 8, 12].map((first) => ({ first, steps: first === 12 ? 2 : 4 })));
    expect(sequence.tokens.slice(10)).toEqual([50, ...Array.from({ length: 14 }, (_, i) => 100 + i)]);
    expect([sequence.finished, pool.used]).toEqual([true, 0]);
  });

  test("counts what was on its way for those that go on, and drops it for the one that is done", async () => {
    const { pool, scheduler, runner, runs } = setUp();
    const ending = sequenceOf(60, {}, (token) => token === 101);
    const other = sequenceOf(60);
    scheduler.add(ending);
    scheduler.add(other);
    const schedule = decoding(scheduler);
    const run = runs.run(schedule, batchOf(schedule), runs.steps(schedule));
    await runner.arrive();
    await runner.arrive();
    await run;
    expect(runner.asked).toHaveLength(2);
    expect(ending.tokens.slice(10)).toEqual([50, 100, 101]);
    expect(other.tokens.slice(10)).toEqual([50, ...Array.from({ length: 8 }, (_, i) => 100 + i)]);
    // Whole pages have names; the run's other pages are back.
    expect([ending.pages.length, other.computed]).toEqual([0, other.tokens.length - 1]);
    expect(pool.used).toBe(Math.ceil(other.computed / PAGE_TOKENS));
  });

  test("ends where somebody comes, or leaves", async () => {
    for (const change of ["comes", "leaves"] as const) {
      const { pool, scheduler, runner, runs } = setUp();
      const [one, other] = [sequenceOf(60), sequenceOf(60)];
      for (const it of [one, other]) scheduler.add(it);
      const schedule = decoding(scheduler);
      const run = runs.run(schedule, batchOf(schedule), runs.steps(schedule));
      await undefined;
      if (change === "comes") scheduler.add(sequenceOf(20));
      else scheduler.remove(one);
      await runner.arrive();
      await runner.arrive();
      await run;
      expect(runner.asked.length).toBeLessThanOrEqual(2);
      expect(one.finished).toBe(change === "leaves");
      expect(other.tokens.length).toBe(11 + 4 * runner.asked.length);
      expect(pool.used).toBe([one, other].reduce((sum, { pages }) => sum + pages.length, 0));
    }
  });

  test("that fails tells so when nothing is on its way any more, and holds no page ahead", async () => {
    const { scheduler, runner, runs } = setUp();
    const sequence = sequenceOf(60);
    scheduler.add(sequence);
    const schedule = decoding(scheduler);
    const run = runs.run(schedule, batchOf(schedule), runs.steps(schedule));
    let told = false;
    run.catch(() => {
      told = true;
    });
    await undefined;
    await runner.arrive(new Error("the device is gone"));
    expect(told).toBe(false);
    await runner.arrive();
    await expect(run).rejects.toThrow("the device is gone");
    expect(sequence.tokens).toHaveLength(11);
    expect(sequence.pages).toHaveLength(1);
  });
});

describe("steps are laid out one by one", () => {
  const stepsFor = (more: Partial<SequenceOptions>, options?: Parameters<typeof setUp>[0]) => {
    const { scheduler, runs } = setUp(options);
    scheduler.add(sequenceOf(60, more));
    return runs.steps(decoding(scheduler));
  };
  test("where the adapter does without, nobody knows the end, somebody proposes, or rules look at the text", () => {
    const rules = (history: boolean) => ({ ...GREEDY, rules: { block: new Uint32Array(), history } });
    expect(stepsFor({})).toBe(49);
    expect(stepsFor({ sampling: rules(false) })).toBe(49);
    expect(stepsFor({}, { off: new Set([FREE_RUN]) })).toBe(1);
    expect(stepsFor({ ending: undefined })).toBe(1);
    expect(stepsFor({ drafting: { wanted: () => 0, plainSteps: () => 1 } })).toBe(1);
    expect(stepsFor({ drafting: { wanted: () => 0, plainSteps: () => 5 } })).toBe(5);
    expect(stepsFor({ sampling: rules(true) })).toBe(1);
  });

  test("where somebody waits who may run", () => {
    const { scheduler, runs } = setUp();
    scheduler.add(sequenceOf(60));
    const schedule = decoding(scheduler);
    scheduler.add(sequenceOf(60));
    expect(runs.steps(schedule)).toBe(1);
  });

  test("where pages are few: as far as they go, and of those that are only cached four for each", () => {
    expect(stepsFor({}, { pages: 3 })).toBeLessThanOrEqual(3 * PAGE_TOKENS - 10);
    expect(stepsFor({}, { pages: 3 })).toBeGreaterThan(PAGE_TOKENS);
    expect(stepsFor({}, { pages: 1 })).toBeLessThanOrEqual(PAGE_TOKENS - 10);
    expect(stepsFor({}, { pages: 1 })).toBeGreaterThan(1);
    const { pool, scheduler, runs } = setUp({ pages: 6 });
    const past = sequenceOf(80, { tokens: Array.from({ length: 79 }, (_, i) => 200 + i) });
    past.reserve(pool, 79);
    past.advance(pool, 79);
    past.release(pool);
    expect([pool.cached, pool.free]).toEqual([4, 2]);
    scheduler.add(sequenceOf(90));
    const schedule = decoding(scheduler);
    expect(runs.steps(schedule)).toBe(4 * PAGE_TOKENS);
    expect([pool.cached, pool.free]).toEqual([1, 0]);
  });
});

describe("a window", () => {
  test("is one step until it is known how long that takes, then as many as 30 ms have", () => {
    const length = new WindowLength(undefined);
    expect(length.steps(1)).toBe(1);
    length.learn(1, 1, 5);
    expect([length.steps(1), length.steps(2)]).toEqual([6, 1]);
    length.learn(2, 4, 400);
    expect(length.steps(2)).toBe(1);
    for (let i = 0; i < 20; i++) length.learn(2, 1, 0.5);
    expect(length.steps(2)).toBe(MOST_STEPS);
    for (let i = 0; i < 20; i++) length.learn(2, 16, 32);
    expect(length.steps(2)).toBe(15);
  });

  test("that is noticed late does not make the next one look short", () => {
    const length = new WindowLength(undefined);
    for (const late of [199, 1, 199, 1, 199, 1]) length.learn(1, 1, late);
    expect(length.steps(1)).toBe(1);
  });

  test("is as long as was asked for", () => {
    const length = new WindowLength(7);
    length.learn(1, 1, 500);
    expect(length.steps(1)).toBe(7);
  });
});
