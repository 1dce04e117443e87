/**
 * The scheduler: what the next step computes.
 *
 * Decoding sequences come first, a token each; then prompts in chunks, in order of arrival, up to the rows of a step. What is
 * left goes to proposals of the decoding ones, a row a proposal, where pages are free. A sequence that finds no page makes the youngest one give its pages up; that one waits at the front of the queue and is
 * computed again from its tokens: never lost.
 */
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { PagePool } from "./pages.ts";
import type { Sequence } from "./sequence.ts";

/** `count` tokens of a sequence after its computed ones, then proposals for what comes behind its last one. */
export interface Scheduled {
  readonly sequence: Sequence;
  readonly count: number;
  readonly drafts: readonly number[];
}

/** An entry that may have so many proposals. */
export interface Room extends Scheduled {
  readonly room: number;
}

/** One kind of output a step: sequences that are scored and that generate take turns. */
export interface Schedule<Entry extends Scheduled = Scheduled> {
  readonly kind: "generate" | "score";
  readonly entries: readonly Entry[];
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

/** The queue of waiting sequences and the list of running ones. */
export class Scheduler {
  readonly #pool: PagePool;
  readonly #limits: SchedulerLimits;
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  /** States that no running sequence has, of which there are as many as sequences may run. */
  readonly #states: number[];
  #last: "generate" | "score" = "score";
  #arrivals = 0;
  /** How often a sequence gave its pages up. */
  preemptions = 0;

  constructor(pool: PagePool, limits: SchedulerLimits) {
    this.#pool = pool;
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
    this.#waiting.push(sequence);
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
    sequence.release(this.#pool);
    if (sequence.state !== undefined) this.#states.push(sequence.state);
    sequence.state = undefined;
  }

  /** Takes every sequence out. */
  clear(): Sequence[] {
    const all = [...this.#running, ...this.#waiting];
    for (const sequence of all) this.remove(sequence);
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
    return { kind, entries: this.#fill(kind) };
  }

  /** Moves waiting sequences to the running ones while pages last. */
  #admit(): void {
    while (this.#running.length < this.#limits.sequences) {
      const [sequence] = this.#waiting;
      if (sequence === undefined) return;
      // A page must be left for it, beyond one for each that is running and may want one soon.
      if (this.#running.length > 0 && this.#pool.available <= this.#running.length) return;
      this.#waiting.shift();
      sequence.state = this.#states.pop();
      sequence.shareFrom(this.#pool);
      insertByArrival(this.#running, sequence);
    }
  }

  #fill(kind: "generate" | "score"): Room[] {
    let rows = kind === "score" ? this.#limits.scoreRows : this.#limits.rows;
    const entries: Room[] = [];
    const left = ({ tokens, computed }: Sequence) => tokens.length - computed;
    const candidates = this.#running.filter(({ options }) => options.kind === kind);
    const decodingFirst = [...candidates.filter((s) => left(s) === 1), ...candidates.filter((s) => left(s) > 1)];
    for (const sequence of decodingFirst) {
      const count = Math.min(left(sequence), rows);
      if (count === 0) break;
      if (!this.#running.includes(sequence)) continue; // gave its pages up meanwhile
      if (!this.#reserve(sequence, count, entries)) continue;
      entries.push({ sequence, count, drafts: [], room: 0 });
      rows -= count;
    }
    return kind === "score" ? entries : this.#withRoom(entries, rows);
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
      sequence.reserve(this.#pool, 1 + wanted);
      const room = Math.min(wanted, sequence.pages.length * PAGE_TOKENS - sequence.computed - 1);
      left -= room;
      return { ...entry, room };
    });
  }

  /** Pages for `count` tokens, if need be from the youngest sequence that is not in the step yet; false: it waits itself. */
  #reserve(sequence: Sequence, count: number, entries: readonly Scheduled[]): boolean {
    while (!sequence.reserve(this.#pool, count)) {
      const taken = new Set(entries.map((entry) => entry.sequence));
      const holders = this.#running.filter((other) => !taken.has(other) && other.pages.length > 0);
      const victim = holders.at(-1);
      // Never an older one, or two that fill the pool would drive each other out for ever: this way the oldest goes on.
      if (victim === undefined || victim.arrival <= sequence.arrival) {
        this.#preempt(sequence);
        return false;
      }
      this.#preempt(victim);
    }
    return true;
  }

  #preempt(sequence: Sequence): void {
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#release(sequence);
    insertByArrival(this.#waiting, sequence);
    this.preemptions++;
  }

  /** Counts what a step computed, but for proposals that were not taken; finished sequences leave and free their pages. */
  commit({ entries }: Schedule, finished: ReadonlySet<Sequence>): void {
    for (const { sequence, count, drafts } of entries) {
      if (sequence.finished) continue; // removed while the step ran
      const { tokens, computed } = sequence;
      // The row of a sequence's newest token is still to come, whatever was proposed for it.
      sequence.advance(this.#pool, drafts.length === 0 ? count : tokens.length - 1 - computed);
      sequence.trim(this.#pool);
      if (finished.has(sequence)) this.remove(sequence);
    }
  }
}

function insertByArrival(list: Sequence[], sequence: Sequence): void {
  const index = list.findIndex(({ arrival }) => arrival > sequence.arrival);
  list.splice(index < 0 ? list.length : index, 0, sequence);
}
