/**
 * The scheduler with a page pool and a cache that is played on the CPU: a slot holds what it was computed from.
 *
 * Every step is checked: what each row reads and writes, the pages' sums, who runs and who waits.
 */
import { expect } from "vitest";
import { PageGroups } from "../engine/pageGroups.ts";
import { PagePool } from "../engine/pages.ts";
import { GREEDY } from "../engine/samplingParams.ts";
import { type Room, type Schedule, type Scheduled, Scheduler, type SchedulerLimits } from "../engine/scheduler.ts";
import { Sequence } from "../engine/sequence.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";

/** A request, and when it comes and leaves. */
export interface Wish {
  readonly kind: "generate" | "score";
  readonly prompt: readonly number[];
  readonly priority?: number;
  /** Tokens to generate. */
  readonly count: number;
  /** Step at which it comes. */
  readonly at: number;
  /** Step at which it is taken out, or undefined. */
  readonly abortAt: number | undefined;
  /** Whether that is before the step, instead of while the GPU works on it. */
  readonly abortEarly?: boolean;
  /** Tokens that are proposed for it in each step, and the share of them that is right. */
  readonly proposals?: { readonly count: number; readonly right: number };
  /** Which wish, by its index, reads the prompt for it: the last one before it that is no fork itself. */
  readonly forkOf?: number | undefined;
}

/** What becomes of a request. */
export interface Job {
  readonly wish: Wish;
  readonly sequence: Sequence;
  /** Positions whose logits came, in order, for a score. */
  readonly scored: number[];
  state: "coming" | "in" | "ended" | "aborted";
  /** Places of its prompt that were computed for it, however often. */
  readonly read: Set<number>;
  /** Prompt tokens that were shared when it first ran. */
  shared: number | undefined;
  /** Step that gave its first token. */
  begun: number | undefined;
}

/** The token after these: any function of all of them, another one for each choice. */
const next = (tokens: readonly number[], choice: number): number =>
  tokens.reduce((sum, token) => (31 * sum + token + 7) % 101, 3 + choice);

/** A sequence that nobody listens to. */
export function newSequence(
  { kind, prompt, proposals, priority }: Pick<Wish, "kind" | "prompt" | "proposals" | "priority">,
  variant = (_: number) => 0,
  forkOf?: Sequence,
): Sequence {
  const drafting = proposals === undefined ? undefined : { wanted: () => proposals.count, plainSteps: () => 1 };
  const callbacks = { onOutput: () => false, onError: () => {}, drafting };
  return new Sequence({
    tokens: prompt,
    kind,
    priority,
    forkOf,
    sampling: GREEDY,
    top: 0,
    logits: false,
    experts: false,
    ropeVariant: variant,
    ...callbacks,
  });
}

/** Whether sequences share pages, and how many keys a row sees; null: all. */
interface PlayOptions {
  readonly shares?: boolean;
  readonly window?: number | null;
}

/** Pools of so many pages, by window. */
export function pagesOf(
  groups: readonly (readonly [pages: number, window: number | null])[],
  shares = true,
): PageGroups {
  return new PageGroups(
    groups.map(([pages, window]) => ({ pool: new PagePool(pages), window })),
    { shares },
  );
}

/** An engine without a GPU: every step is checked against what each slot must hold. */
export class Play {
  readonly pool: PageGroups;
  readonly scheduler: Scheduler;
  readonly jobs: Job[];
  readonly schedules: Schedule[] = [];
  readonly #limits: SchedulerLimits;
  readonly #window: number | null;
  /** Tokens up to and with the one that the slot was written for. */
  readonly #slots = new Map<number, string>();
  /** Tokens that each state has seen. */
  readonly #states = new Map<number, string>();

  constructor(
    pages: number,
    limits: SchedulerLimits,
    wishes: readonly Wish[],
    { shares = true, window = null }: PlayOptions = {},
  ) {
    this.#limits = limits;
    this.#window = window;
    this.pool = pagesOf([[pages, window]], shares);
    this.scheduler = new Scheduler(this.pool, limits);
    this.jobs = [];
    for (const wish of wishes) {
      const forkOf = wish.forkOf === undefined || !shares ? undefined : this.jobs[wish.forkOf]?.sequence;
      this.jobs.push({
        wish,
        sequence: newSequence(wish, undefined, forkOf),
        scored: [],
        state: "coming",
        read: new Set(),
        shared: undefined,
        begun: undefined,
      });
    }
  }

  /** Runs until nothing is left to do; `onStep` is called before each step. */
  run(onStep: (schedule: Schedule) => void = () => {}): void {
    const work = this.jobs.reduce((sum, { wish }) => sum + wish.prompt.length + wish.count, 0);
    const most = 1000 + 60 * work; // far above what it takes, far below for ever
    for (let step = 0; ; step++) {
      if (step > most) throw new Error(`not done after ${most} steps; ${this.scheduler.preemptions} preemptions`);
      this.#arrive(step);
      this.#leave(step, true);
      const schedule = this.scheduler.next();
      this.#expectOrder(schedule);
      if (schedule !== undefined) {
        onStep(schedule);
        this.#step(this.#propose(schedule), step);
      }
      if (schedule === undefined && this.jobs.every(({ state }) => state !== "coming")) break;
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

  #leave(step: number, early: boolean): void {
    for (const job of this.jobs) {
      const { abortAt, abortEarly = false } = job.wish;
      if (abortAt !== step || abortEarly !== early || (job.state !== "in" && job.state !== "coming")) continue;
      this.scheduler.remove(job.sequence);
      expect(job.sequence.pages).toEqual([]); // at once
      job.state = "aborted";
    }
  }

  /** Those that run come before those that wait; those of them that compute before those that do not. */
  #expectOrder(schedule: Schedule | undefined): void {
    const inside = this.jobs.filter(({ state }) => state === "in").sort(byOrder);
    const runs = inside.map(({ sequence }) => sequence.state !== undefined);
    expect(runs.lastIndexOf(true)).toBe(this.scheduler.running - 1);
    expect(runs.filter((one) => !one)).toHaveLength(this.scheduler.waiting);
    if (schedule === undefined) return;
    const reads = ({ sequence: { tokens, computed, promptLength } }: Job) =>
      computed < promptLength || tokens.length - computed > 1;
    const same = inside.filter(
      ({ wish, sequence }) => wish.kind === schedule.kind && sequence.state !== undefined && !sequence.waits,
    );
    const order = [...same.filter((job) => !reads(job)), ...same.filter(reads)];
    expect(schedule.entries.map(({ sequence }) => sequence.arrival)).toEqual(
      order.slice(0, schedule.entries.length).map(({ sequence }) => sequence.arrival),
    );
    for (const { sequence, count } of schedule.entries.slice(0, -1))
      expect(count).toBe(sequence.tokens.length - sequence.computed); // who is cut is the last
  }

  /** Proposals as far as there is room: right ones, then one that is wrong, then any. */
  #propose({ entries, ...schedule }: Schedule<Room>): Schedule {
    return {
      ...schedule,
      entries: entries.map(({ sequence, count, room }) => {
        const job = this.#jobOf(sequence);
        const right = job.wish.proposals?.right ?? 0;
        const all = [...sequence.tokens];
        const drafts = Array.from({ length: room }, (_, i) => {
          all.push(next(all, this.#choiceOf(job)));
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
    for (const { from, to } of schedule.copies) {
      for (let i = 0; i < PAGE_TOKENS; i++) {
        const content = this.#slots.get(from * PAGE_TOKENS + i);
        if (content !== undefined) this.#slots.set(to * PAGE_TOKENS + i, content);
      }
    }
    for (const entry of entries) {
      this.#compute(entry);
      if (!this.pool.shares) this.#recur(entry);
    }
    this.#leave(step, false);
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
    const job = this.#jobOf(sequence);
    job.shared ??= computed;
    for (let i = computed; i < Math.min(computed + count, sequence.promptLength); i++) job.read.add(i);
    const tokens = [...sequence.tokens, ...drafts];
    const first = this.#window === null ? 0 : Math.max(computed - this.#window + 1, 0);
    for (let position = first; position < computed + count + drafts.length; position++) {
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

  #choiceOf({ wish }: Job): number {
    return wish.forkOf === undefined ? 0 : this.jobs.findIndex((job) => job.wish === wish) - wish.forkOf;
  }

  #jobOf(sequence: Sequence): Job {
    const job = this.jobs.find((each) => each.sequence === sequence);
    if (job === undefined) throw new Error("a sequence of nobody");
    return job;
  }

  #output({ sequence, count, drafts }: Scheduled): boolean {
    const job = this.#jobOf(sequence);
    if (job.state === "aborted") return false;
    const { tokens, computed } = sequence;
    let ended = false;
    for (let position = computed; position < computed + count; position++) {
      if (job.wish.kind === "score") {
        if (job.scored.length <= position) job.scored.push(position);
        job.begun ??= this.schedules.length;
        ended = position === tokens.length - 1;
      }
    }
    if (job.wish.kind === "generate" && computed + count === tokens.length) {
      job.begun ??= this.schedules.length;
      for (const draft of [...drafts, undefined]) {
        tokens.push(next(tokens, this.#choiceOf(job)));
        ended = tokens.length - job.wish.prompt.length === job.wish.count;
        if (ended || tokens.at(-1) !== draft) break;
      }
    }
    if (ended) job.state = "ended";
    return ended;
  }

  /** Everyone has what they asked for, and nobody holds anything. */
  expectDone(): void {
    for (const job of this.jobs) {
      const { wish, sequence, scored, state } = job;
      if (wish.abortAt === undefined) expect(state).toBe("ended");
      if (state !== "ended") continue;
      if (wish.kind === "score") expect(scored).toEqual(wish.prompt.map((_, i) => i));
      const alone = [...wish.prompt];
      if (wish.kind === "generate") for (let i = 0; i < wish.count; i++) alone.push(next(alone, this.#choiceOf(job)));
      expect(sequence.tokens).toEqual(alone);
    }
    this.#expectNobodyOvertaken();
    this.#expectSums();
  }

  /** First tokens come in order among equals, whoever left meanwhile. An answer that waits for its prompt holds nobody up. */
  #expectNobodyOvertaken(): void {
    for (const kind of ["generate", "score"]) {
      const begun = this.jobs
        .filter((job) => job.wish.kind === kind && job.begun !== undefined && job.wish.forkOf === undefined)
        .sort(byOrder);
      begun.forEach(({ wish, begun: own }, i) => {
        const before = begun[i - 1];
        if (before === undefined || (before.wish.priority ?? 0) !== (wish.priority ?? 0)) return;
        expect(before.begun).toBeLessThanOrEqual(own ?? Number.NaN);
      });
    }
  }

  #expectSums(): void {
    const count = (which: Job["state"]) => this.jobs.filter(({ state }) => state === which).length;
    expect(count("ended") + count("aborted")).toBe(this.jobs.length);
    expect(this.pool.used).toBe(0);
    expect(this.pool.cached).toBeLessThanOrEqual(this.pool.available);
    expect(this.scheduler.running + this.scheduler.waiting).toBe(0);
    for (const { state, sequence, read, shared } of this.jobs) {
      expect(sequence.pages).toEqual([]);
      expect(sequence.state).toBeUndefined();
      if (state !== "ended") continue;
      // Prompt = cached + computed. One that gave its pages up may find them again, or those that others made meanwhile.
      expect(sequence.computedTokens).toBe(read.size);
      expect(sequence.cachedTokens).toBe(sequence.promptLength - read.size);
      if (this.scheduler.preemptions === 0) expect(sequence.cachedTokens).toBe(shared);
    }
  }
}

function byOrder({ sequence: one }: Job, { sequence: other }: Job): number {
  return one.priority === other.priority ? one.arrival - other.arrival : one.priority - other.priority;
}

/** Of a step, where a test says nothing else. */
export const LIMITS = { rows: 64, scoreRows: 64, sequences: 8 };
/** A prompt: two of one seed begin alike. */
export const tokens = (count: number, seed = 0) => Array.from({ length: count }, (_, i) => (seed * 37 + i) % 101);
/** A request for four tokens, unless `more` says otherwise. */
export const wish = (prompt: readonly number[], more: Partial<Wish> = {}): Wish => ({
  kind: "generate",
  prompt,
  count: 4,
  at: 0,
  abortAt: undefined,
  ...more,
});

/** A wish, and other answers to its prompt, which come with it. */
export function withForks(first: Wish, forks: readonly Partial<Wish>[]): readonly Wish[] {
  return [first, ...forks.map((fork): Wish => ({ ...first, abortAt: undefined, ...fork, forkOf: 0 }))];
}

/** Several of these as one list. */
export function inARow(lists: readonly (readonly Wish[])[]): Wish[] {
  const all: Wish[] = [];
  for (const list of lists) {
    const first = all.length;
    all.push(...list.map((one) => (one.forkOf === undefined ? one : { ...one, forkOf: first })));
  }
  return all;
}

/** Plays to the end, checks all, and returns what was played. */
export function play(
  pages: number,
  wishes: readonly Wish[],
  limits: SchedulerLimits = LIMITS,
  options: PlayOptions = {},
): Play {
  const all = new Play(pages, limits, wishes, options);
  all.run();
  all.expectDone();
  return all;
}
