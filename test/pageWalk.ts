/**
 * Sequences and the page pool beside a plain model of them, which knows what every slot was written from.
 *
 * The model holds lists: who holds which page, which pages are named by what, which of them nobody holds, in the order in which
 * they were let go. Each command runs on both, and all that can be seen must agree.
 */
import { PageGroups } from "../engine/pageGroups.ts";
import { PagePool } from "../engine/pages.ts";
import { GREEDY } from "../engine/samplingParams.ts";
import { Sequence, type SequenceOptions } from "../engine/sequence.ts";
import { KEY_BLOCK, PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import { Random } from "../kernels/testbed.ts";

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
  /** By cache group; NONE where a window left a page behind. */
  readonly tables: readonly number[][];
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

/** A cache group as it should be. */
class Group {
  readonly pool: PagePool;
  readonly window: number | null;
  /** What each slot was written from: the number of a row with all rows before it. */
  readonly slots: Int32Array;
  /** Pages by what is in them to their last row, and back. */
  readonly pageOf = new Map<number, number>();
  readonly nameOf = new Map<number, number>();
  /** Named pages that nobody holds, the one that was let go first in front. */
  readonly cached: number[] = [];

  constructor(pool: PagePool, window: number | null) {
    [this.pool, this.window] = [pool, window];
    this.slots = new Int32Array(pool.total * PAGE_TOKENS);
  }

  /** The first page that holds a key that the row at `position` sees, blocks of keys being read as a whole. */
  first(position: number): number {
    const low = this.window === null ? 0 : Math.max(position - this.window + 1, 0);
    return Math.floor((low - (low % KEY_BLOCK)) / PAGE_TOKENS);
  }

  row(page: number, position: number): number | undefined {
    return this.slots[page * PAGE_TOKENS + (position % PAGE_TOKENS)];
  }
}

/** A walk of random commands. Each method throws where the model and the parts differ. */
export class PageWalk {
  readonly #cache: PageGroups;
  readonly #groups: readonly Group[];
  readonly #Seq: Parts["Seq"];
  readonly #random: Random;
  #members: Member[] = [];
  /** Tokens of some that left, for others to begin with. */
  readonly #past: number[][] = [];
  readonly #rows = new Map<number, number>();
  /** How often each command did something, and how often pages were found, evicted and wanted in vain. */
  readonly counts: Record<string, number> = {};

  /** `windows` has one entry a cache group, each of which has `total` pages. */
  constructor(seed: number, total: number, windows: readonly (number | null)[], { Pool, Seq }: Parts = REAL) {
    this.#random = new Random(seed);
    this.#groups = windows.map((window) => new Group(new Pool(total), window));
    this.#cache = new PageGroups(this.#groups);
    this.#Seq = Seq;
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
    must(this.#cache.used === 0, `${this.#cache.used} pages are held when idle`);
  }

  #join(): void {
    const [past, other] = [this.#pick(this.#past), this.#pick(this.#members)?.sequence.tokens];
    const from = this.#below(2) === 0 ? past : other; // a fork of one that is there, or an old beginning
    const tokens = (from ?? []).slice(0, this.#below(LONGEST - 10));
    for (let more = 1 + this.#below(9); more > 0; more--) tokens.push(this.#below(TOKENS));
    const sequence = new this.#Seq({ tokens, kind: "generate", ropeVariant, ...SILENT });
    const member = this.#member(sequence);
    this.#count("join");
    this.#admit(member);
  }

  #member(sequence: Sequence): Member {
    const member = { sequence, tables: this.#groups.map(() => []), computed: 0, named: 0 };
    this.#members.push(member);
    return member;
  }

  /** Another answer to a member's prompt: it holds the full pages before the last token, and a copy of the next one. */
  #fork(from: Member): void {
    const { sequence: forkOf, computed } = from;
    const { tokens } = forkOf.options;
    if (tokens.some((token, i) => forkOf.tokens[i] !== token)) return; // truncated to another prompt
    const sequence = new this.#Seq({ tokens, kind: "generate", ropeVariant, forkOf, ...SILENT });
    must(sequence.waits === computed < tokens.length, `waits: is ${sequence.waits} with ${computed} tokens computed`);
    if (sequence.waits || this.#members.length >= MEMBERS) return;
    const member = this.#member(sequence);
    const last = tokens.length - 1;
    const full = Math.floor(last / PAGE_TOKENS);
    const copied = last % PAGE_TOKENS > 0 && this.#room() > 0;
    const shared = copied ? last : full * PAGE_TOKENS;
    const needed = (group: Group, i: number) =>
      from.tables[i]?.slice(0, full).map((page, index) => (index < group.first(shared) ? NONE : page)) ?? [];
    const there = this.#groups.every((group, i) =>
      from.tables[i]?.slice(group.first(shared)).every((page) => page !== NONE),
    );
    if (there) {
      this.#groups.forEach((group, i) => void member.tables[i]?.push(...needed(group, i)));
      member.computed = shared;
      member.named = full;
    }
    const copies = sequence.fork(this.#cache);
    must(
      copies.length === (there && copied ? this.#groups.length : 0),
      `fork: ${copies.length} copies behind ${full} pages`,
    );
    for (const { group, from: source, to } of copies) {
      const { slots } = this.#group(group);
      must(
        source === from.tables[group]?.[full],
        `fork: copies page ${source} of group ${group}, which is not the next`,
      );
      must(to === sequence.tables[group]?.[full], `fork: copies to page ${to}, which it does not hold`);
      this.#taken(member, group, to);
      slots.copyWithin(to * PAGE_TOKENS, source * PAGE_TOKENS, (source + 1) * PAGE_TOKENS);
    }
    this.#read(member);
    this.#count(!there ? "too late" : copied ? "copy" : "fork");
  }

  /** Holds the pages that begin as it does: as many as the model knows, and the same. */
  #admit(member: Member): void {
    const { sequence } = member;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    const name = (index: number) => rows[(index + 1) * PAGE_TOKENS - 1] ?? Number.NaN;
    let count = Math.ceil(rows.length / PAGE_TOKENS) - 1;
    const found = (group: Group) => {
      for (let i = group.first(count * PAGE_TOKENS); i < count; i++) if (!group.pageOf.has(name(i))) return false;
      return true;
    };
    while (!this.#groups.every(found)) count--;
    for (const [i, group] of this.#groups.entries()) {
      for (let index = 0; index < count; index++) {
        const page = index < group.first(count * PAGE_TOKENS) ? NONE : (group.pageOf.get(name(index)) ?? Number.NaN);
        if (group.cached.includes(page)) group.cached.splice(group.cached.indexOf(page), 1);
        member.tables[i]?.push(page);
        this.#count("found");
      }
    }
    member.named = count;
    member.computed = count * PAGE_TOKENS;
    sequence.shareFrom(this.#cache);
    this.#read(member);
  }

  #append(member: Member): void {
    const { sequence } = member;
    if (member.computed === 0 && sequence.pages.length === 0) this.#admit(member);
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
    const room = Math.min(wanted, sequence.pages.length * PAGE_TOKENS - member.computed - 1);
    const drafts = Array.from({ length: room }, () => this.#below(TOKENS));
    this.#write(member, [...tokens, ...drafts], 1 + room);
    const taken = this.#below(room + 1);
    tokens.push(...drafts.slice(0, taken), this.#below(TOKENS));
    this.#advance(member, 1 + taken);
    sequence.trim(this.#cache);
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
    sequence.rollBack(this.#cache, tokens);
    this.#letGo(member, Math.ceil(member.computed / PAGE_TOKENS));
    const reaches = (group: Group, i: number) =>
      member.tables[i]?.slice(group.first(member.computed)).every((page) => page !== NONE) === true;
    if (!this.#groups.every(reaches)) {
      this.#letGo(member, 0);
      [member.computed, member.named] = [0, 0];
      this.#count("back behind a window");
    }
    if (sequence.computed === sequence.tokens.length) sequence.tokens.push(this.#below(TOKENS));
    this.#count("truncate");
  }

  #preempt(member: Member): void {
    member.sequence.release(this.#cache);
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
    const guest = this.#member(new this.#Seq({ tokens: [0], kind: "score", ropeVariant, ...SILENT }));
    const total = this.#groups[0]?.pool.total ?? Number.NaN;
    this.#reserve(guest, PAGE_TOKENS * (1 + this.#below(total)));
    for (const [i, { slots }] of this.#groups.entries())
      for (const page of guest.sequence.tables[i] ?? []) slots.fill(-1, page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS);
    this.#check();
    this.#preempt(guest);
    this.#members.pop();
    this.#count("evict");
  }

  #reserve(member: Member, count: number): boolean {
    const { tables, pages } = member.sequence;
    const before = pages.length;
    const wanted = Math.ceil((member.computed + count) / PAGE_TOKENS) - before;
    const enough = wanted <= this.#room();
    must(member.sequence.reserve(this.#cache, count) === enough, `reserve: expected ${enough} for ${wanted} pages`);
    for (let index = before; index < pages.length; index++)
      this.#groups.forEach((_, i) => void this.#taken(member, i, tables[i]?.[index] ?? Number.NaN));
    if (!enough) this.#count("in vain");
    return enough;
  }

  /** Pages that nobody holds, in the group that has fewest of them. */
  #room(): number {
    return Math.min(...this.#groups.map(({ pool }, i) => pool.total - this.#held(i).size));
  }

  /** A page that nobody held is the member's: a free one, or where there is none the one that was let go first. */
  #taken(member: Member, i: number, page: number): void {
    const { pool, cached, nameOf, pageOf } = this.#group(i);
    const held = this.#held(i);
    must(!held.has(page), `page ${page} was taken, but somebody holds it`);
    if (held.size + cached.length === pool.total) {
      must(page === cached.shift(), `page ${page} was evicted, but another was let go before it`);
      pageOf.delete(nameOf.get(page) ?? Number.NaN);
      nameOf.delete(page);
      this.#count("evicted");
    } else must(!nameOf.has(page), `page ${page} was taken, but it is named, and others are free`);
    member.tables[i]?.push(page);
  }

  /** Writes the rows after the computed ones, and reads what these see. */
  #write(member: Member, tokens: readonly number[], count: number): void {
    this.#read(member);
    const { tables, computed } = member.sequence;
    const rows = this.#rowsOf(member.sequence, tokens);
    for (const [i, { slots, nameOf }] of this.#groups.entries()) {
      for (let position = computed; position < computed + count; position++) {
        const page = tables[i]?.[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN;
        const writers = this.#members.filter((other) => other.sequence.tables[i]?.includes(page)).length;
        must(writers === 1, `page ${page} is written by one of ${writers} that hold it`);
        must(!nameOf.has(page), `page ${page} is written, but it is named`);
        slots[page * PAGE_TOKENS + (position % PAGE_TOKENS)] = rows[position] ?? Number.NaN;
      }
    }
  }

  /** What the next step reads: of each group every computed row that its first row sees, and the blocks that these lie in. */
  #read({ sequence }: Member): void {
    const { tables, computed } = sequence;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    for (const [i, group] of this.#groups.entries()) {
      for (let position = group.first(computed) * PAGE_TOKENS; position < computed; position++) {
        const page = tables[i]?.[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN;
        const same = group.row(page, position) === rows[position];
        must(same, `page ${page} has another row than token ${position}'s`);
      }
    }
  }

  #advance(member: Member, count: number): void {
    const { sequence } = member;
    sequence.advance(this.#cache, count);
    member.computed += count;
    const rows = this.#rowsOf(sequence, sequence.tokens);
    for (; (member.named + 1) * PAGE_TOKENS <= member.computed; member.named++) {
      for (const [i, { pageOf, nameOf }] of this.#groups.entries()) {
        const [name, page] = [rows[(member.named + 1) * PAGE_TOKENS - 1], member.tables[i]?.[member.named]];
        if (name === undefined || page === undefined || pageOf.has(name) || nameOf.has(page)) continue;
        pageOf.set(name, page);
        nameOf.set(page, name);
      }
    }
    this.#leaveBehind(member);
  }

  /** Gives back what no row sees from the last one on: the first page first. */
  #leaveBehind({ tables, computed }: Member): void {
    for (const [i, group] of this.#groups.entries()) {
      const table = tables[i] ?? [];
      for (let index = 0; index < Math.min(group.first(computed - 1), table.length); index++) {
        const page = table[index] ?? NONE;
        if (page === NONE) continue;
        table[index] = NONE;
        this.#free(i, page);
        this.#count("left behind");
      }
    }
  }

  /** Gives back all pages but the first `kept`, the last one first. */
  #letGo(member: Member, kept: number): void {
    for (const [i, table] of member.tables.entries())
      for (const page of table.splice(kept).reverse()) if (page !== NONE) this.#free(i, page);
  }

  #free(i: number, page: number): void {
    const { cached, nameOf } = this.#group(i);
    if (!this.#held(i).has(page) && nameOf.has(page)) cached.push(page);
  }

  #held(i: number): Set<number> {
    return new Set(this.#members.flatMap(({ tables }) => tables[i]?.filter((page) => page !== NONE) ?? []));
  }

  #group(i: number): Group {
    const group = this.#groups[i];
    if (group === undefined) throw new RangeError(`group ${i} of ${this.#groups.length}`);
    return group;
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
    this.#groups.forEach((group, i) => void this.#checkGroup(group, i));
    for (const { sequence, tables, computed } of this.#members) {
      must(sequence.computed === computed, `${sequence.computed} tokens are computed, expected ${computed}`);
      const all = sequence.tables.slice(0, tables.length);
      must(all.join("; ") === tables.join("; "), `a sequence holds ${all.join("; ")}, expected ${tables.join("; ")}`);
    }
  }

  #checkGroup(group: Group, i: number): void {
    const { total, used, cached, available } = group.pool;
    const held = this.#held(i).size;
    const free = available - cached;
    must(free + used + cached === total, `${free} free + ${used} used + ${cached} cached of ${total} pages`);
    must(used === held, `${used} pages are used, but ${held} held`);
    must(cached === group.cached.length, `${cached} pages are cached, expected ${group.cached.length}`);
    for (const [name, page] of group.pageOf)
      must(group.row(page, PAGE_TOKENS - 1) === name, `page ${page} has another content than its name`);
  }

  #below(count: number): number {
    return this.#random.below(count);
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
