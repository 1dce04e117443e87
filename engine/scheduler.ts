/**
 * The scheduler: what the next step computes.
 *
 * Sequences have an order: by priority, the lower number first, and among equals by arrival. Those that run are always its
 * first ones. A step decodes first, a token a sequence; then come prompts in chunks, in order, up to the rows of a step. What is
 * left goes to proposals of the decoding ones, a row a proposal, where pages are free.
 *
 * A sequence that finds no page makes the last one of the order give its pages up, if need be its own: that one waits, and is
 * computed again from its tokens: never lost. So does one that runs where a sequence of a better priority waits for a place.
 */
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { PageGroups } from "./pageGroups.ts";
import type { PageCopy, Sequence } from "./sequence.ts";

/** `count` tokens of a sequence after its computed ones, then proposals for what comes behind its last one. */
export interface Scheduled {
  readonly sequence: Sequence;
  readonly count: number;
  readonly drafts: readonly number[];
  /** Where the scores lie that each proposal was drawn from (draftScores.ts); unset: a proposal stands for itself. */
  readonly drafted?: readonly number[] | undefined;
}

/** An entry that may have so many proposals. */
export interface Room extends Scheduled {
  readonly room: number;
}

/** One kind of output a step: sequences that are scored and that generate take turns. */
export interface Schedule<Entry extends Scheduled = Scheduled> {
  readonly kind: "generate" | "score";
  readonly entries: readonly Entry[];
  /** Copies of pages that come before it, in this order. */
  readonly copies: readonly PageCopy[];
}

/** What one step may hold. */
export interface SchedulerLimits {
  /** Rows of a step. */
  readonly rows: number;
  /** Rows of a step whose logits are all wanted. */
  readonly scoreRows: number;
  /** Sequences that run at once: each has a state of its own. */
  readonly sequences: number;
}

/** Tokens of a sequence for which cached pages are given up before it is known that it has so many: four pages. */
const CACHED_AHEAD = 4 * PAGE_TOKENS;

/** The queue of waiting sequences and the list of running ones. */
export class Scheduler {
  readonly #cache: PageGroups;
  readonly #limits: SchedulerLimits;
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  /** States that no running sequence has, of which there are as many as sequences may run. */
  readonly #states: number[];
  /** Copies of pages that no step has made yet. Until one has, none has written either: what is to be copied is still there. */
  readonly #copies: PageCopy[] = [];
  #last: "generate" | "score" = "score";
  #arrivals = 0;
  /** How often a sequence gave its pages up. */
  preemptions = 0;

  constructor(cache: PageGroups, limits: SchedulerLimits) {
    this.#cache = cache;
    this.#limits = limits;
    this.#states = Array.from({ length: limits.sequences }, (_, i) => limits.sequences - 1 - i);
  }

  get waiting(): number {
    return this.#waiting.length;
  }
  get running(): number {
    return this.#running.length;
  }

  add(sequence: Sequence): void {
    sequence.arrival = ++this.#arrivals;
    insert(this.#waiting, sequence);
  }

  /** Takes a sequence out, in whatever state, and frees its pages. */
  remove(sequence: Sequence): void {
    for (const list of [this.#waiting, this.#running]) {
      const index = list.indexOf(sequence);
      if (index >= 0) list.splice(index, 1);
    }
    sequence.finished = true;
    this.#release(sequence);
  }

  /** Frees what it holds; a state is not cleared, since a sequence at position 0 begins with an empty one. */
  #release(sequence: Sequence): void {
    sequence.release(this.#cache);
    if (sequence.state !== undefined) this.#states.push(sequence.state);
    sequence.state = undefined;
  }

  /** Takes every sequence out. */
  clear(): Sequence[] {
    const all = [...this.#running, ...this.#waiting];
    for (const sequence of all) this.remove(sequence);
    this.#copies.length = 0;
    return all;
  }

  /** Undefined where there is nothing to do. */
  next(): Schedule<Room> | undefined {
    this.#admit();
    const kinds = new Set(this.#running.map(({ options }) => options.kind));
    if (kinds.size === 0) return undefined;
    const other = this.#last === "generate" ? "score" : "generate";
    const kind = kinds.has(other) ? other : this.#last;
    this.#last = kind;
    return { kind, entries: this.#fill(kind), copies: [...this.#copies] };
  }

  /** Whether the next step would again be one token of each of these, and of nobody else. */
  goesOn(entries: readonly Scheduled[]): boolean {
    if (entries.length !== this.#running.length || entries.some(({ sequence }) => sequence.finished)) return false;
    const [first] = this.#waiting;
    const last = this.#running.at(-1);
    const full = this.#running.length >= this.#limits.sequences;
    return first === undefined || (full && last !== undefined && last.priority <= first.priority);
  }

  /**
   * Pages for as many tokens of each as they may have in a row, at most `most`: where they are free, and for some pages' worth those
   * that are only cached. Returns how many; `letGo` gives back what was not used.
   */
  ahead(entries: readonly Scheduled[], most: number): number {
    const wanted = (count: number) =>
      entries.reduce((sum, { sequence: { computed, pages } }) => {
        return sum + Math.max(Math.ceil((computed + count) / PAGE_TOKENS) - pages.length, 0);
      }, 0);
    const { free, available } = this.#cache;
    let count = most;
    while (count > CACHED_AHEAD && wanted(count) > free) count = Math.max(count - PAGE_TOKENS, CACHED_AHEAD);
    while (count > 1 && wanted(count) > available) count = Math.ceil(count / 2);
    if (count > 1) for (const { sequence } of entries) sequence.keep(this.#cache, count);
    return count;
  }

  /** Gives back pages of tokens that were not computed after all. */
  letGo(entries: readonly Scheduled[]): void {
    for (const { sequence } of entries) sequence.letGo(this.#cache);
  }

  /** Moves waiting sequences to the running ones while there is a place, which one of a better priority makes for itself. */
  #admit(): void {
    for (;;) {
      const [sequence] = this.#waiting;
      if (sequence === undefined) return;
      if (this.#hasPlace()) {
        this.#waiting.shift();
        sequence.state = this.#states.pop();
        this.#begin(sequence);
        insert(this.#running, sequence);
      } else {
        const last = this.#running.at(-1);
        if (last === undefined || last.priority <= sequence.priority) return;
        this.#preempt(last);
      }
    }
  }

  /** Holds what is computed of it already. One whose prompt is being read waits for that, in its place of the order. */
  #begin(sequence: Sequence): void {
    if (sequence.waits) return;
    this.#copies.push(...sequence.fork(this.#cache));
    if (sequence.computed === 0) sequence.shareFrom(this.#cache);
  }

  /** Whether one more may run. A page must be left for it, beyond one for each that is running and may want one soon. */
  #hasPlace(): boolean {
    const running = this.#running.length;
    return running === 0 || (running < this.#limits.sequences && this.#cache.available > running);
  }

  #fill(kind: "generate" | "score"): Room[] {
    const rows = kind === "score" ? this.#limits.scoreRows : this.#limits.rows;
    const entries: Room[] = [];
    const left = ({ tokens, computed }: Sequence) => tokens.length - computed;
    const candidates = this.#running.filter(({ options, waits }) => options.kind === kind && !waits);
    // The last token of a prompt is no decoding: a short prompt would overtake a long one.
    const decodes = (one: Sequence) => left(one) === 1 && one.computed >= one.promptLength;
    const decodingFirst = [...candidates.filter(decodes), ...candidates.filter((one) => !decodes(one))];
    for (const sequence of decodingFirst) {
      const count = Math.min(left(sequence), rows - rowsOf(entries));
      if (count === 0) break;
      if (!this.#running.includes(sequence)) continue; // gave its pages up meanwhile
      if (this.#reserve(sequence, count, entries)) entries.push({ sequence, count, drafts: [], room: 0 });
    }
    return kind === "score" ? entries : this.#withRoom(entries, rows - rowsOf(entries));
  }

  /** Shares the rows that are left among those that decode and have a use for them. Takes pages that are free, and nobody's. */
  #withRoom(entries: readonly Room[], rows: number): Room[] {
    const ending = entries.filter(({ sequence, count }) => sequence.computed + count === sequence.tokens.length);
    let left = Math.min(rows, this.#limits.scoreRows - ending.length);
    const decoding = ending.filter(({ count }) => count === 1).length;
    let others = decoding;
    return entries.map((entry) => {
      const { sequence, count } = entry;
      const { drafting } = sequence.options;
      if (count > 1 || sequence.computed + count < sequence.tokens.length) return entry;
      const share = Math.floor(left / others--);
      if (share < 1 || drafting === undefined) return entry;
      const wanted = Math.min(drafting.wanted(sequence, decoding), share);
      sequence.reserve(this.#cache, 1 + wanted);
      const room = Math.min(wanted, sequence.pages.length * PAGE_TOKENS - sequence.computed - 1);
      left -= room;
      return { ...entry, room };
    });
  }

  /** Pages for `count` tokens, if need be from the last ones of the order, which leave the step; false: it was last itself. */
  #reserve(sequence: Sequence, count: number, entries: Room[]): boolean {
    while (!sequence.reserve(this.#cache, count)) {
      // Never one before it, or two that fill the pool would drive each other out for ever: this way the first one goes on.
      const victim = this.#running.at(-1) ?? sequence;
      this.#preempt(victim);
      if (victim === sequence) return false;
      const at = entries.findIndex((entry) => entry.sequence === victim);
      if (at >= 0) entries.splice(at, 1);
    }
    return true;
  }

  #preempt(sequence: Sequence): void {
    if (sequence.pages.length > 0) this.preemptions++;
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#release(sequence);
    insert(this.#waiting, sequence);
  }

  /** Counts what a step computed, but for proposals that were not taken; finished sequences leave and free their pages. */
  commit({ entries, copies }: Schedule, finished: ReadonlySet<Sequence>): void {
    this.#copies.splice(0, copies.length);
    for (const { sequence, count, drafts } of entries) {
      if (sequence.finished) continue; // removed while the step ran
      const { tokens, computed } = sequence;
      // The row of a sequence's newest token is still to come, whatever was proposed for it.
      sequence.advance(this.#cache, drafts.length === 0 ? count : tokens.length - 1 - computed);
      sequence.trim(this.#cache);
      this.#passOn(sequence, computed);
      if (finished.has(sequence)) this.remove(sequence);
    }
  }

  /** Where its prompt was read to the end just now, those that waited for it go on from its pages. */
  #passOn(sequence: Sequence, before: number): void {
    const { promptLength, computed } = sequence;
    if (before >= promptLength || computed < promptLength) return;
    for (const other of this.#running) if (other.options.forkOf === sequence) this.#begin(other);
  }
}

const rowsOf = (entries: readonly Scheduled[]): number => entries.reduce((sum, { count }) => sum + count, 0);

/** Puts a sequence in its place of the order. */
function insert(list: Sequence[], sequence: Sequence): void {
  const index = list.findIndex((other) => isBefore(sequence, other));
  list.splice(index < 0 ? list.length : index, 0, sequence);
}

function isBefore(one: Sequence, other: Sequence): boolean {
  return one.priority === other.priority ? one.arrival < other.arrival : one.priority < other.priority;
}
