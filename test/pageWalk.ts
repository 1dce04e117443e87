/**
 * Sequences and the page pool beside a plain model of them, which knows what every slot was written from.
 *
 * The model holds lists: who holds which page, which pages are named by what, which of them nobody holds, in the order in which
 * they were let go. Each command runs on both, and all that can be seen must agree.
 */
import { PagePool } from "../engine/pages.ts";
import { GREEDY, Sequence, type SequenceOptions } from "../engine/sequence.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";

/** What is walked on: the real ones, or some with a bug. */
export interface Parts {
  readonly Pool: new (total: number) => PagePool;
  readonly Seq: new (options: SequenceOptions) => Sequence;
}

/** The parts as they are. */
export const REAL: Parts = { Pool: PagePool, Seq: Sequence };

/** A sequence, and what the model knows of it. */
interface Member {
  readonly sequence: Sequence;
  pages: number[];
  computed: number;
  /** Pages that it named, or found by their names. */
  named: number;
}

const TOKENS = 3;
const MEMBERS = 8;
const LONGEST = 90;
/** Two kinds of rotation: what was computed with one is nothing to the other. */
const ropeVariant = (length: number): number => (length > 60 ? 1 : 0);
const SILENT = { sampling: GREEDY, top: 0, logits: false, experts: false, onOutput: () => false, onError: () => {} };

/** Numbers from 0 to 1 by mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A walk of random commands. Each method throws where the model and the parts differ. */
export class PageWalk {
  readonly #pool: PagePool;
  readonly #Seq: Parts["Seq"];
  readonly #random: () => number;
  #members: Member[] = [];
  /** Tokens of some that left, for others to begin with. */
  readonly #past: number[][] = [];
  /** What each slot was written from: the number of a row with all rows before it. */
  readonly #slots: Int32Array;
  readonly #rows = new Map<number, number>();
  /** Pages by what is in them to their last row, and back. */
  readonly #pageOf = new Map<number, number>();
  readonly #nameOf = new Map<number, number>();
  /** Named pages that nobody holds, the one that was let go first in front. */
  readonly #cached: number[] = [];
  /** How often each command did something, and how often pages were found, evicted and wanted in vain. */
  readonly counts: Record<string, number> = {};

  constructor(seed: number, total: number, { Pool, Seq }: Parts = REAL) {
    this.#random = randomFrom(seed);
    this.#pool = new Pool(total);
    this.#Seq = Seq;
    this.#slots = new Int32Array(total * PAGE_TOKENS);
  }

  /** One command. */
  step(): void {
    const draw = this.#below(100);
    const member = this.#members[this.#below(Math.max(this.#members.length, 1))];
    if (member === undefined || (draw < 8 && this.#members.length < MEMBERS)) this.#join();
    else if (draw < 16) this.#fork(member);
    else if (draw < 60) this.#append(member);
    else if (draw < 75) this.#propose(member);
    else if (draw < 82) this.#truncate(member);
    else if (draw < 89) this.#preempt(member);
    else if (draw < 96) this.#leave(member);
    else this.#evict();
    this.#check();
  }

  /** Everybody leaves. */
  end(): void {
    for (const member of [...this.#members]) this.#leave(member);
    this.#check();
    must(this.#pool.used === 0, `${this.#pool.used} pages are held when idle`);
  }

  #join(): void {
    const [past, other] = [this.#pick(this.#past), this.#pick(this.#members)?.sequence.tokens];
    const from = this.#below(2) === 0 ? past : other; // a fork of one that is there, or an old beginning
    const tokens = (from ?? []).slice(0, this.#below(LONGEST - 10));
    for (let more = 1 + this.#below(9); more > 0; more--) tokens.push(this.#below(TOKENS));
    const sequence = new this.#Seq({ tokens, kind: "generate", ropeVariant, ...SILENT });
    const member = { sequence, pages: [], computed: 0, named: 0 };
    this.#members.push(member);
    this.#count("join");
    this.#admit(member);
  }

  /** Another answer to a member's prompt: it holds the full pages before the last token, and a copy of the next one. */
  #fork({ sequence: forkOf, pages, computed }: Member): void {
    const { tokens } = forkOf.options;
    if (tokens.some((token, i) => forkOf.tokens[i] !== token)) return; // truncated to another prompt
    const sequence = new this.#Seq({ tokens, kind: "generate", ropeVariant, forkOf, ...SILENT });
    must(sequence.waits === computed < tokens.length, `waits: is ${sequence.waits} with ${computed} tokens computed`);
    if (sequence.waits || this.#members.length >= MEMBERS) return;
    const last = tokens.length - 1;
    const full = Math.floor(last / PAGE_TOKENS);
    const member: Member = { sequence, pages: pages.slice(0, full), computed: full * PAGE_TOKENS, named: full };
    this.#members.push(member);
    const copies = last % PAGE_TOKENS > 0 && this.#held().size < this.#pool.total;
    const copy = sequence.fork(this.#pool);
    must((copy !== undefined) === copies, `fork: expected ${copies ? "a" : "no"} copy behind ${full} pages`);
    if (copy !== undefined) {
      must(copy.from === pages[full], `fork: copies page ${copy.from}, expected ${pages[full]}`);
      must(copy.to === sequence.pages[full], `fork: copies to page ${copy.to}, which it does not hold`);
      this.#taken(member, copy.to);
      this.#slots.copyWithin(copy.to * PAGE_TOKENS, copy.from * PAGE_TOKENS, (copy.from + 1) * PAGE_TOKENS);
      member.computed = last;
    }
    this.#read(member);
    this.#count(copies ? "copy" : "fork");
  }

  /** Holds the pages that begin as it does: as many as the model knows, and the same. */
  #admit(member: Member): void {
    const { sequence } = member;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    for (let end = PAGE_TOKENS; end < rows.length; end += PAGE_TOKENS) {
      const page = this.#pageOf.get(rows[end - 1] ?? Number.NaN);
      if (page === undefined) break;
      if (this.#cached.includes(page)) this.#cached.splice(this.#cached.indexOf(page), 1);
      member.pages.push(page);
      this.#count("found");
    }
    member.named = member.pages.length;
    member.computed = member.pages.length * PAGE_TOKENS;
    sequence.shareFrom(this.#pool);
    this.#read(member);
  }

  #append(member: Member): void {
    const { sequence } = member;
    if (member.computed === 0 && member.pages.length === 0) this.#admit(member);
    const count = 1 + this.#below(sequence.tokens.length - member.computed);
    if (!this.#reserve(member, count)) return;
    this.#write(member, sequence.tokens, count);
    this.#advance(member, count);
    if (sequence.computed === sequence.tokens.length) sequence.tokens.push(this.#below(TOKENS));
    if (sequence.tokens.length > LONGEST) this.#leave(member);
    this.#count("append");
  }

  /** Rows of proposals, of which some are taken, as far as there are pages. */
  #propose(member: Member): void {
    const { sequence } = member;
    const { tokens } = sequence;
    if (tokens.length - member.computed !== 1 || !this.#reserve(member, 1)) return;
    const wanted = 1 + this.#below(20);
    this.#reserve(member, 1 + wanted);
    const room = Math.min(wanted, member.pages.length * PAGE_TOKENS - member.computed - 1);
    const drafts = Array.from({ length: room }, () => this.#below(TOKENS));
    this.#write(member, [...tokens, ...drafts], 1 + room);
    const taken = this.#below(room + 1);
    tokens.push(...drafts.slice(0, taken), this.#below(TOKENS));
    this.#advance(member, 1 + taken);
    sequence.trim(this.#pool);
    this.#letGo(member, Math.ceil(member.computed / PAGE_TOKENS));
    if (tokens.length > LONGEST) this.#leave(member);
    this.#count("propose");
  }

  /** Other tokens behind the pages that are named. */
  #truncate(member: Member): void {
    const { sequence } = member;
    const kept = member.named * PAGE_TOKENS;
    const same = kept + this.#below(sequence.tokens.length - kept + 1);
    const tokens = sequence.tokens.slice(0, same);
    for (let more = 1 + this.#below(4); more > 0; more--) tokens.push(this.#below(TOKENS));
    const differs = tokens.findIndex((token, i) => sequence.tokens[i] !== token);
    member.computed = Math.min(member.computed, differs < 0 ? tokens.length : differs);
    sequence.rollBack(this.#pool, tokens);
    this.#letGo(member, Math.ceil(member.computed / PAGE_TOKENS));
    if (sequence.computed === sequence.tokens.length) sequence.tokens.push(this.#below(TOKENS));
    this.#count("truncate");
  }

  #preempt(member: Member): void {
    member.sequence.release(this.#pool);
    this.#letGo(member, 0);
    [member.computed, member.named] = [0, 0];
    this.#count("preempt");
  }

  #leave(member: Member): void {
    this.#preempt(member);
    this.#members = this.#members.filter((other) => other !== member);
    this.#past.push([...member.sequence.tokens]);
    if (this.#past.length > 4) this.#past.shift();
    this.#count("leave");
  }

  /** Somebody else takes pages, writes into them, and leaves. */
  #evict(): void {
    const guest: Member = {
      sequence: new this.#Seq({ tokens: [0], kind: "score", ropeVariant, ...SILENT }),
      pages: [],
      computed: 0,
      named: 0,
    };
    this.#members.push(guest);
    this.#reserve(guest, PAGE_TOKENS * (1 + this.#below(this.#pool.total)));
    for (const page of guest.sequence.pages) this.#slots.fill(-1, page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS);
    this.#check();
    this.#preempt(guest);
    this.#members.pop();
    this.#count("evict");
  }

  #reserve(member: Member, count: number): boolean {
    const wanted = Math.ceil((member.computed + count) / PAGE_TOKENS) - member.pages.length;
    const enough = wanted <= this.#pool.total - this.#held().size;
    const { pages } = member.sequence;
    const before = pages.length;
    must(member.sequence.reserve(this.#pool, count) === enough, `reserve: expected ${enough} for ${wanted} pages`);
    for (const page of pages.slice(before)) this.#taken(member, page);
    if (!enough) this.#count("in vain");
    return enough;
  }

  /** A page that nobody held is the member's: a free one, or where there is none the one that was let go first. */
  #taken(member: Member, page: number): void {
    const held = this.#held();
    must(!held.has(page), `page ${page} was taken, but somebody holds it`);
    if (held.size + this.#cached.length === this.#pool.total) {
      must(page === this.#cached.shift(), `page ${page} was evicted, but another was let go before it`);
      this.#pageOf.delete(this.#nameOf.get(page) ?? Number.NaN);
      this.#nameOf.delete(page);
      this.#count("evicted");
    } else must(!this.#nameOf.has(page), `page ${page} was taken, but it is named, and others are free`);
    member.pages.push(page);
  }

  /** Writes the rows after the computed ones, which it reads. */
  #write(member: Member, tokens: readonly number[], count: number): void {
    this.#read(member);
    const { pages, computed } = member.sequence;
    const rows = this.#rowsOf(member.sequence, tokens);
    for (let position = computed; position < computed + count; position++) {
      const page = pages[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN;
      const writers = this.#members.filter((other) => other.sequence.pages.includes(page)).length;
      must(writers === 1, `page ${page} is written by one of ${writers} that hold it`);
      must(!this.#nameOf.has(page), `page ${page} is written, but it is named`);
      this.#slots[page * PAGE_TOKENS + (position % PAGE_TOKENS)] = rows[position] ?? Number.NaN;
    }
  }

  /** What a step reads: every computed row. */
  #read({ sequence }: Member): void {
    const { pages, computed } = sequence;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    for (let position = 0; position < computed; position++) {
      const page = pages[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN;
      const row = this.#slots[page * PAGE_TOKENS + (position % PAGE_TOKENS)];
      must(row === rows[position], `page ${page} has another row than token ${position}'s`);
    }
  }

  #advance(member: Member, count: number): void {
    const { sequence } = member;
    sequence.advance(this.#pool, count);
    member.computed += count;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    for (; (member.named + 1) * PAGE_TOKENS <= member.computed; member.named++) {
      const [name, page] = [rows[(member.named + 1) * PAGE_TOKENS - 1], member.pages[member.named]];
      if (name === undefined || page === undefined || this.#pageOf.has(name) || this.#nameOf.has(page)) continue;
      this.#pageOf.set(name, page);
      this.#nameOf.set(page, name);
    }
  }

  /** Gives back all pages but the first `kept`, the last one first. */
  #letGo(member: Member, kept: number): void {
    for (const page of member.pages.splice(kept).reverse())
      if (!this.#held().has(page) && this.#nameOf.has(page)) this.#cached.push(page);
  }

  #held(): Set<number> {
    return new Set(this.#members.flatMap(({ pages }) => pages));
  }

  /** A number for each token with all before it and their rotations: equal where keys and values are. */
  #rowsOf(sequence: Sequence, tokens: readonly number[]): number[] {
    let row = 0;
    return tokens.map((token, position) => {
      const step = (row * TOKENS + token) * 2 + ropeVariant(sequence.passLength(position));
      row = this.#rows.get(step) ?? this.#rows.size + 1;
      this.#rows.set(step, row);
      return row;
    });
  }

  #check(): void {
    const { total, used, cached, available } = this.#pool;
    const held = this.#held().size;
    const free = available - cached;
    must(free + used + cached === total, `${free} free + ${used} used + ${cached} cached of ${total} pages`);
    must(used === held, `${used} pages are used, but ${held} held`);
    must(cached === this.#cached.length, `${cached} pages are cached, expected ${this.#cached.length}`);
    for (const { sequence, pages, computed } of this.#members) {
      must(sequence.computed === computed, `${sequence.computed} tokens are computed, expected ${computed}`);
      must(sequence.pages.join() === pages.join(), `a sequence holds ${sequence.pages}, expected ${pages}`);
    }
    for (const [name, page] of this.#pageOf)
      must(
        this.#slots[page * PAGE_TOKENS + PAGE_TOKENS - 1] === name,
        `page ${page} has another content than its name`,
      );
  }

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[this.#below(list.length)];
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}

function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
