/** The scheduler with a page pool and a cache that is played on the CPU: a slot holds what it was computed from. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { PagePool } from "./pages.ts";
import { type Room, type Schedule, type Scheduled, Scheduler, type SchedulerLimits } from "./scheduler.ts";
import { GREEDY, Sequence } from "./sequence.ts";

interface Wish {
  readonly kind: "generate" | "score";
  readonly prompt: readonly number[];
  /** Tokens to generate. */
  readonly count: number;
  /** Step at which it comes. */
  readonly at: number;
  /** Step at which it is taken out, or undefined. */
  readonly abortAt: number | undefined;
  /** Tokens that are proposed for it in each step, and the share of them that is right. */
  readonly proposals?: { readonly count: number; readonly right: number };
}

/** What becomes of a request. */
interface Job {
  readonly wish: Wish;
  readonly sequence: Sequence;
  /** Positions whose logits came, in order, for a score. */
  readonly scored: number[];
  state: "coming" | "in" | "ended" | "aborted";
}

/** The token after these: any function of all of them. */
const next = (tokens: readonly number[]): number => tokens.reduce((sum, token) => (31 * sum + token + 7) % 101, 3);

function newSequence(
  { kind, prompt, proposals }: Pick<Wish, "kind" | "prompt" | "proposals">,
  variant = (_: number) => 0,
): Sequence {
  const drafting = proposals === undefined ? undefined : { wanted: () => proposals.count };
  const callbacks = { onOutput: () => false, onError: () => {}, drafting };
  return new Sequence({
    tokens: prompt,
    kind,
    sampling: GREEDY,
    top: 0,
    logits: false,
    experts: false,
    ropeVariant: variant,
    ...callbacks,
  });
}

/** An engine without a GPU: every step is checked against what each slot must hold. */
class Play {
  readonly pool: PagePool;
  readonly scheduler: Scheduler;
  readonly jobs: Job[];
  readonly schedules: Schedule[] = [];
  readonly #limits: SchedulerLimits;
  /** Tokens up to and with the one that the slot was written for. */
  readonly #slots = new Map<number, string>();
  /** Tokens that each state has seen. */
  readonly #states = new Map<number, string>();

  constructor(pages: number, limits: SchedulerLimits, wishes: readonly Wish[], shares = true) {
    this.#limits = limits;
    this.pool = new PagePool(pages, { shares });
    this.scheduler = new Scheduler(this.pool, limits);
    this.jobs = wishes.map((wish) => ({ wish, sequence: newSequence(wish), scored: [], state: "coming" }));
  }

  /** Runs until nothing is left to do. */
  run(): void {
    const work = this.jobs.reduce((sum, { wish }) => sum + wish.prompt.length + wish.count, 0);
    const most = 1000 + 60 * work; // far above what it takes, far below for ever
    for (let step = 0; ; step++) {
      if (step > most) throw new Error(`not done after ${most} steps; ${this.scheduler.preemptions} preemptions`);
      this.#arrive(step);
      const schedule = this.scheduler.next();
      if (schedule !== undefined) this.#step(this.#propose(schedule), step);
      else if (this.jobs.every(({ state }) => state !== "coming")) break;
    }
  }

  #arrive(step: number): void {
    for (const job of this.jobs) {
      if (job.state === "coming" && job.wish.at <= step) {
        this.scheduler.add(job.sequence);
        job.state = "in";
      }
    }
  }

  /** Proposals as far as there is room: right ones, then one that is wrong, then any. */
  #propose({ kind, entries }: Schedule<Room>): Schedule {
    return {
      kind,
      entries: entries.map(({ sequence, count, room }) => {
        const right = this.jobs.find((job) => job.sequence === sequence)?.wish.proposals?.right ?? 0;
        const all = [...sequence.tokens];
        const drafts = Array.from({ length: room }, (_, i) => {
          all.push(next(all));
          return (all.at(-1) ?? 0) + (i < right * room ? 0 : 1);
        });
        return { sequence, count, drafts };
      }),
    };
  }

  #step(schedule: Schedule, step: number): void {
    this.schedules.push(schedule);
    const { kind, entries } = schedule;
    const rows = entries.reduce((sum, { count, drafts }) => sum + count + drafts.length, 0);
    expect(rows).toBeLessThanOrEqual(kind === "score" ? this.#limits.scoreRows : this.#limits.rows);
    expect(this.scheduler.running).toBeLessThanOrEqual(this.#limits.sequences);
    for (const entry of entries) {
      this.#compute(entry);
      if (!this.pool.shares) this.#recur(entry);
    }
    // Requests that leave while the GPU works.
    for (const job of this.jobs) {
      if (job.wish.abortAt === step && (job.state === "in" || job.state === "coming")) {
        this.scheduler.remove(job.sequence);
        job.state = "aborted";
      }
    }
    const finished = new Set<Sequence>();
    for (const entry of entries) if (this.#output(entry)) finished.add(entry.sequence);
    this.scheduler.commit(schedule, finished);
    for (const { sequence } of entries) {
      // As many pages as without proposals, and the newest token is still to be computed.
      expect(sequence.pages).toHaveLength(Math.ceil(sequence.computed / PAGE_TOKENS));
      if (sequence.options.kind === "generate") expect(sequence.computed).toBeLessThan(sequence.tokens.length);
    }
    expect(this.pool.used + this.pool.available).toBe(this.pool.total);
  }

  #compute({ sequence, count, drafts }: Scheduled): void {
    expect(count).toBeGreaterThan(0);
    const { computed, pages } = sequence;
    const tokens = [...sequence.tokens, ...drafts];
    for (let position = 0; position < computed + count + drafts.length; position++) {
      const page = pages[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN;
      const slot = page * PAGE_TOKENS + (position % PAGE_TOKENS);
      const must = tokens.slice(0, position + 1).join(" ");
      if (position < computed) {
        if (this.#slots.get(slot) !== must) expect(this.#slots.get(slot)).toBe(must);
        continue;
      }
      const writers = this.jobs.filter(({ sequence: other }) => other.pages.includes(page));
      if (writers.length !== 1) expect(writers).toEqual([sequence]);
      this.#slots.set(slot, must);
    }
  }

  /** A state goes on from where it stands; only a sequence at its beginning may take any. */
  #recur({ sequence: { tokens, computed, state }, count }: Scheduled): void {
    const own = state ?? Number.NaN;
    expect(own).toBeLessThan(this.#limits.sequences);
    if (computed > 0) expect(this.#states.get(own)).toBe(tokens.slice(0, computed).join(" "));
    this.#states.set(own, tokens.slice(0, computed + count).join(" "));
  }

  #output({ sequence, count, drafts }: Scheduled): boolean {
    const job = this.jobs.find((each) => each.sequence === sequence);
    if (job === undefined) throw new Error("a sequence of nobody");
    if (job.state === "aborted") return false;
    const { tokens, computed } = sequence;
    let ended = false;
    for (let position = computed; position < computed + count; position++) {
      if (job.wish.kind === "score") {
        if (job.scored.length <= position) job.scored.push(position);
        ended = position === tokens.length - 1;
      }
    }
    if (job.wish.kind === "generate" && computed + count === tokens.length) {
      for (const draft of [...drafts, undefined]) {
        tokens.push(next(tokens));
        ended = tokens.length - job.wish.prompt.length === job.wish.count;
        if (ended || tokens.at(-1) !== draft) break;
      }
    }
    if (ended) job.state = "ended";
    return ended;
  }

  /** Everyone has what they asked for, and nobody holds anything. */
  expectDone(): void {
    for (const { wish, sequence, scored, state } of this.jobs) {
      if (wish.abortAt === undefined) expect(state).toBe("ended");
      if (state !== "ended") continue;
      if (wish.kind === "score") expect(scored).toEqual(wish.prompt.map((_, i) => i));
      const alone = [...wish.prompt];
      if (wish.kind === "generate") for (let i = 0; i < wish.count; i++) alone.push(next(alone));
      expect(sequence.tokens).toEqual(alone);
    }
    expect(this.pool.used).toBe(0);
    expect(this.scheduler.running + this.scheduler.waiting).toBe(0);
  }
}

const LIMITS = { rows: 64, scoreRows: 64, sequences: 8 };
const tokens = (count: number, seed = 0) => Array.from({ length: count }, (_, i) => (seed * 37 + i) % 101);
const wish = (prompt: readonly number[], more: Partial<Wish> = {}): Wish => ({
  kind: "generate",
  prompt,
  count: 4,
  at: 0,
  abortAt: undefined,
  ...more,
});

function play(pages: number, wishes: readonly Wish[], limits: SchedulerLimits = LIMITS, shares = true): Play {
  const all = new Play(pages, limits, wishes, shares);
  all.run();
  all.expectDone();
  return all;
}

/** "2 5x" for two decoded tokens and a chunk of five, step by step. */
const shape = ({ schedules }: Play) =>
  schedules.map(({ entries }) =>
    entries.map(({ count, drafts }) => (drafts.length === 0 ? `${count}` : `${count}+${drafts.length}`)).join(" "),
  );

describe("Scheduler", () => {
  test("cuts a prompt into chunks and then decodes", () => {
    expect(shape(play(100, [wish(tokens(150))]))).toEqual(["64", "64", "22", "1", "1", "1"]);
  });

  test("decodes before prompts, and fills the step up with these in order of arrival", () => {
    const all = play(100, [
      wish(tokens(10, 1), { count: 6 }),
      wish(tokens(100, 2), { at: 1, count: 2 }),
      wish(tokens(30, 3), { at: 1, count: 2 }),
    ]);
    expect(shape(all)).toEqual(["10", "1 63", "1 37 26", "1 1 4", "1 1", "1"]);
    for (const { entries } of all.schedules) {
      const chunks = entries.map(({ count }) => count);
      expect(chunks.lastIndexOf(1)).toBeLessThanOrEqual(
        Math.max(
          chunks.findIndex((count) => count > 1),
          chunks.length - 1,
        ),
      );
    }
  });

  test("scores and answers take turns", () => {
    const { schedules } = play(100, [wish(tokens(200, 1), { kind: "score", count: 0 }), wish(tokens(5), { count: 4 })]);
    expect(schedules.map(({ kind }) => kind)).toEqual([
      ...["generate", "score", "generate", "score", "generate", "score", "generate", "score"],
    ]);
  });

  test("runs no more sequences at once than it may, in order of arrival", () => {
    const wishes = Array.from({ length: 6 }, (_, i) => wish(tokens(3, i), { count: 3 }));
    const all = play(100, wishes, { rows: 64, scoreRows: 64, sequences: 2 });
    const order = all.schedules.map(({ entries }) => entries.map(({ sequence }) => sequence.arrival));
    expect(order.flat().filter((arrival, i, list) => list.indexOf(arrival) === i)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(Math.max(...order.map((list) => list.length))).toBe(2);
  });

  test("a decoding sequence gets a token in every step of its kind", () => {
    const all = play(100, [wish(tokens(4, 1), { count: 12 }), wish(tokens(500, 2), { at: 2 })]);
    const first = all.jobs[0]?.sequence;
    const steps = all.schedules.filter(({ entries }) => entries.some(({ sequence }) => sequence === first));
    expect(all.schedules.indexOf(steps.at(-1) ?? all.schedules[0] ?? { kind: "score", entries: [] })).toBe(11);
  });

  test("shares the pages of an earlier prompt, but computes one token at least", () => {
    const prompt = tokens(48);
    const all = play(100, [wish(prompt), wish(prompt, { at: 8 }), wish(prompt.slice(0, 33), { at: 16 })]);
    expect(all.jobs.map(({ sequence }) => sequence.cachedTokens)).toEqual([0, 32, 32]);
  });

  test("shares nothing where layers keep states, and gives each sequence one of its own", () => {
    const prompt = tokens(48);
    const wishes = [
      wish(prompt, { count: 9 }),
      wish(prompt, { at: 1, abortAt: 3 }),
      wish(prompt, { at: 4, count: 12 }),
      wish(prompt, { at: 5, kind: "score", count: 0 }),
    ];
    const all = play(100, wishes, { rows: 40, scoreRows: 16, sequences: 3 }, false);
    expect(all.jobs.map(({ sequence }) => [sequence.cachedTokens, sequence.state])).toEqual(
      wishes.map(() => [0, undefined]),
    );
    expect(all.pool.cached).toBe(0);
    const some = Array.from({ length: 4 }, (_, i) => wish(tokens(20, i), { count: 40 }));
    expect(play(8, some, LIMITS, false).scheduler.preemptions).toBeGreaterThan(0);
  });

  test("a pool that is too small for all makes the youngest wait, and nothing is lost", () => {
    const wishes = Array.from({ length: 4 }, (_, i) => wish(tokens(20, i), { count: 40 }));
    const { scheduler } = play(8, wishes);
    expect(scheduler.preemptions).toBeGreaterThan(0);
  });

  test("a score and an answer that fill the pool together both end", () => {
    const score = wish(tokens(76, 1), { kind: "score", count: 0 });
    const long = wish(tokens(48, 2), { count: 20 });
    play(6, [score, long]);
    play(6, [long, score]);
  });

  test("proposals take the rows that are left, by equal shares", () => {
    const proposals = { count: 4, right: 1 };
    expect(shape(play(100, [wish(tokens(5), { count: 12, proposals })]))).toEqual(["5", "1+4", "1+4", "1+4"]);
    const three = [1, 2, 3].map((seed) => wish(tokens(1, seed), { count: 2, proposals }));
    expect(shape(play(100, three, { rows: 8, scoreRows: 8, sequences: 3 }))[0]).toBe("1+1 1+2 1+2");
    const reading = [wish(tokens(2, 1), { count: 6, proposals }), wish(tokens(16, 2), { count: 2, at: 1 })];
    expect(shape(play(100, reading, { rows: 8, scoreRows: 8, sequences: 2 })).slice(0, 4)).toEqual([
      "2",
      "1 7",
      "1 7",
      "1+4 2",
    ]);
  });

  test("wrong proposals cost no token and no page", () => {
    const proposals = { count: 3, right: 0.5 };
    const all = play(3, [wish(tokens(14), { count: 20, proposals })]);
    expect(shape(all).slice(0, 3)).toEqual(["14", "1+3", "1+3"]);
    expect(all.scheduler.preemptions).toBe(0);
  });

  test("clear takes out what waits and what runs", () => {
    const pool = new PagePool(4);
    const scheduler = new Scheduler(pool, { ...LIMITS, sequences: 1 });
    const sequences = [tokens(20, 1), tokens(20, 2)].map((prompt) => newSequence({ kind: "generate", prompt }));
    for (const sequence of sequences) scheduler.add(sequence);
    expect(scheduler.next()?.entries).toHaveLength(1);
    expect(pool.used).toBe(2);
    expect(new Set(scheduler.clear())).toEqual(new Set(sequences));
    expect([pool.used, scheduler.running, scheduler.waiting]).toEqual([0, 0, 0]);
    expect(scheduler.next()).toBeUndefined();
  });

  test("any requests, at any time, with any pool that holds the longest: all end, with what each would get alone", {
    timeout: 300_000,
  }, () => {
    const MOST = 90; // tokens of a request
    const anyWish = fc
      .record({
        kind: fc.constantFrom<Wish["kind"]>("generate", "generate", "score"),
        length: fc.integer({ min: 1, max: 70 }),
        family: fc.nat(1), // few beginnings, so that pages are shared
        count: fc.integer({ min: 1, max: 20 }),
        at: fc.nat(30),
        abortAt: fc.option(fc.nat(60), { nil: undefined, freq: 4 }),
        proposals: fc.record({ count: fc.nat(9), right: fc.constantFrom(0, 0.5, 1) }),
      })
      .map(
        ({ kind, length, family, count, at, abortAt, proposals }): Wish => ({
          kind,
          prompt: tokens(length, family),
          count: kind === "score" ? 0 : count,
          at,
          abortAt,
          proposals,
        }),
      );
    const anyLimits = fc.record({
      rows: fc.constantFrom(1, 2, 5, 16, 64),
      scoreRows: fc.constantFrom(1, 4, 16),
      sequences: fc.constantFrom(1, 2, 3, 8),
    });
    const least = Math.ceil(MOST / PAGE_TOKENS);
    fc.assert(
      fc.property(
        fc.integer({ min: least, max: 3 * least }),
        fc.array(anyWish, { minLength: 1, maxLength: 8 }),
        anyLimits,
        (pages, wishes, limits) => {
          play(pages, wishes, { ...limits, sequences: Math.min(limits.sequences, limits.rows) });
        },
      ),
      { numRuns: process.env.INGLE_SUITE === "full" ? 3000 : 150 },
    );
  });
});

describe("Sequence", () => {
  test("shares no page whose rotations were others", () => {
    const pool = new PagePool(8);
    const prompt = tokens(40);
    const variants = [(_: number) => 0, (length: number) => (length > 32 ? 1 : 0)];
    const [first, second, third] = [variants[0], variants[1], variants[0]].map((variant) =>
      newSequence({ kind: "generate", prompt }, variant),
    );
    if (first === undefined || second === undefined || third === undefined) throw new Error("three sequences");
    expect(first.reserve(pool, 40)).toBe(true);
    first.advance(pool, 40);
    first.release(pool);
    second.shareFrom(pool);
    expect(second.computed).toBe(0);
    third.shareFrom(pool);
    expect(third.computed).toBe(32);
  });

  test("a score shares nothing, since the logits of every token are wanted", () => {
    const pool = new PagePool(8);
    const [first, second] = [0, 1].map(() => newSequence({ kind: "score", prompt: tokens(40) }));
    if (first === undefined || second === undefined) throw new Error("two sequences");
    first.reserve(pool, 40);
    first.advance(pool, 40);
    first.release(pool);
    second.shareFrom(pool);
    expect(second.pages).toEqual([]);
  });
});
