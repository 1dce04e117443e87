/** One request in the engine: its tokens, its pages, and how far it has been computed. */
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import { firstPageOf } from "./cacheGroups.ts";
import type { PageGroup, PageGroups } from "./pageGroups.ts";
import { type PageKey, pageKey } from "./pages.ts";
import type { SamplingParams } from "./samplingParams.ts";
import type { TokenLogprob } from "./types.ts";

/** What the scheduler asks of whoever proposes tokens for a sequence. */
export interface Drafting {
  /** Proposals that are worth their rows, in a step in which so many sequences decode. */
  wanted(sequence: Sequence, decoding: number): number;
  /** Steps that the sequence may decode in a row before that is asked again; 1: each. */
  plainSteps(sequence: Sequence): number;
}

/** Where a sequence ends by itself, as far as can be known without its text. */
export interface Ending {
  /** Tokens that it has at most, prompt included. */
  readonly length: number;
  readonly stopIds: ReadonlySet<number>;
}

/** What came out of one row. */
export interface RowOutput {
  /** The token drawn, or the target whose log-probability was asked for. */
  readonly token: number;
  readonly logprob: number;
  readonly top: readonly TokenLogprob[];
  readonly finite: boolean;
  /** Of each mixture of experts in order of depth, where asked for: the experts, highest weight first. */
  readonly experts?: readonly (readonly number[])[];
}

/** What a sequence is made of. */
export interface SequenceOptions {
  readonly tokens: readonly number[];
  /** "generate" draws a token after the last one; "score" wants the log-probability of every one. */
  readonly kind: "generate" | "score";
  /** Sequences of a lower number go first. Unset: 0. */
  readonly priority?: number | undefined;
  /** Another answer to the same prompt, which arrived just before: it reads the prompt for this one. */
  readonly forkOf?: Sequence | undefined;
  readonly sampling: SamplingParams;
  /** Best tokens to report with each. */
  readonly top: number;
  /** Whether logits themselves are read back (score only). */
  readonly logits: boolean;
  /** Whether the experts that its rows went to are read back (score only). */
  readonly experts: boolean;
  /** What two lengths of a pass have in common if their rotations are equal (models/rope.ts). */
  readonly ropeVariant: (length: number) => number;
  /** Unset: nobody can tell, and each of its steps is laid out when the one before is known. */
  readonly ending?: Ending | undefined;
  /** Called once a token in order; returns whether the sequence ends there. */
  readonly onOutput: (output: RowOutput, position: number, logits?: Float32Array) => boolean;
  /** Called when more tokens are computed. */
  readonly onComputed?: (computed: number) => void;
  /** Called when it gives its pages up: for good, or until there is room again. */
  readonly onRelease?: () => void;
  /** What its random numbers are for: proposals of a draft have others than what is drawn for good. Unset: the latter. */
  readonly purpose?: number;
  /** Unset: nobody proposes tokens for it. */
  readonly drafting?: Drafting | undefined;
  readonly onError: (error: unknown) => void;
}

/** A page of a cache group whose content another one is to have. */
export interface PageCopy {
  readonly group: number;
  readonly from: number;
  readonly to: number;
}

/** How a token of a prompt came. */
const [SHARED, COMPUTED] = [1, 2];

/** One request's tokens and pages. */
export class Sequence {
  readonly options: SequenceOptions;
  readonly tokens: number[];
  readonly promptLength: number;
  /** Tokens whose keys and values are in its pages. */
  computed = 0;
  /** Tokens of the prompt that it never computed itself, since their pages were shared; and those that it did, each once. */
  cachedTokens = 0;
  computedTokens = 0;
  readonly priority: number;
  /** Block tables: its pages in order, by cache group, all of one length; NONE where a window has left a page behind. */
  readonly tables: readonly [number[], number[]] = [[], []];
  /** Which of the states that layers keep is its own while it runs: set by the scheduler. */
  state: number | undefined;
  finished = false;
  /** Tokens that were proposed for it, and those of them that it took. */
  proposed = 0;
  accepted = 0;
  /** Whether proposals were drawn by chance: then its seed alone does not say what was drawn. */
  chanced = false;
  /** Order of arrival: set by the scheduler. */
  arrival = 0;
  /** Tokens up to which it keeps its pages, computed or not: steps that are on their way may write them. */
  #keptTo = 0;
  #keys: PageKey[] = [];
  /** Pages at the beginning of each table that it has given back. */
  readonly #behind: [number, number] = [0, 0];
  /** How each token of the prompt came: what it finds of its own after it gave its pages up is no gift. */
  readonly #came: Uint8Array;

  constructor(options: SequenceOptions) {
    this.options = options;
    this.tokens = [...options.tokens];
    this.promptLength = this.tokens.length;
    this.#came = new Uint8Array(this.promptLength);
    this.priority = options.priority ?? 0;
  }

  get #begun(): boolean {
    return this.computedTokens > 0;
  }

  /** Its pages in the first cache group. */
  get pages(): readonly number[] {
    return this.tables[0];
  }

  /** Length of the pass that row `position` was part of: rope scalings may depend on it. */
  passLength(position: number): number {
    return Math.max(this.promptLength, position + 1);
  }

  /** Holds pages of earlier sequences that began with the same tokens, unless it has its own; at least one token is left to compute. */
  shareFrom(cache: PageGroups): void {
    if (this.options.kind === "score" || this.pages.length > 0 || !cache.shares) return;
    const keys: PageKey[] = [];
    const keyOf = (index: number) => {
      const key = pageKey(keys[index - 1] ?? "", this.#pageRows(index));
      keys.push(key);
      return key;
    };
    const count = cache.found(keyOf, Math.floor((this.tokens.length - 1) / PAGE_TOKENS));
    this.#keys = keys.slice(0, count);
    cache.groups.forEach(({ pool, window }, group) => {
      const first = Math.min(firstPageOf(count * PAGE_TOKENS, window), count);
      this.#hold(group, first, (index) => pool.share(this.#keys[index] ?? "") ?? NONE);
    });
    this.computed = count * PAGE_TOKENS;
    this.#countShared();
  }

  /** A page for each key in a group's table, but none before page `first`. */
  #hold(group: number, first: number, page: (index: number) => number): void {
    const table = this.tables[group] ?? [];
    for (let i = 0; i < this.#keys.length; i++) table.push(i < first ? NONE : page(i));
    this.#behind[group] = first;
  }

  /** Tokens that it never computed are cached as far as pages were shared; what it will compute after all is not. */
  #countShared(): void {
    this.#came.forEach((came, i) => {
      if (came !== COMPUTED) this.#came[i] = i < this.computed ? SHARED : 0;
    });
    this.cachedTokens = this.#came.reduce((sum, came) => sum + (came === SHARED ? 1 : 0), 0);
  }

  /** Whether its prompt is being read for it. */
  get waits(): boolean {
    const { forkOf } = this.options;
    if (forkOf === undefined || forkOf.finished || this.#begun || this.computed > 0) return false;
    return forkOf.computed < this.promptLength;
  }

  /**
   * Goes on before the last token of a prompt that `forkOf` read: holds its full pages, and takes a page for a copy of the next one,
   * which both will write, in each group. Returns the copies that are to be made: without pages for them, it computes that part itself.
   */
  fork(cache: PageGroups): readonly PageCopy[] {
    const { forkOf } = this.options;
    const last = this.promptLength - 1; // computed by each, which draws from its logits
    if (forkOf === undefined || this.#begun || this.pages.length > 0 || forkOf.computed < last) return [];
    const full = Math.floor(last / PAGE_TOKENS);
    const copied = last % PAGE_TOKENS > 0 && cache.available > 0;
    const computed = copied ? last : full * PAGE_TOKENS;
    const first = cache.groups.map(({ window }) => Math.min(firstPageOf(computed, window), full));
    if (first.some((index, group) => index < (forkOf.#behind[group] ?? 0))) return [];
    this.computed = computed;
    this.#keys = forkOf.#keys.slice(0, full);
    cache.groups.forEach(({ pool }, group) => {
      this.#hold(group, first[group] ?? 0, (index) => {
        const page = forkOf.tables[group]?.[index] ?? NONE;
        pool.hold(page);
        return page;
      });
    });
    this.#countShared();
    const pages = copied ? (cache.take() ?? []) : [];
    return pages.map((to, group) => {
      this.tables[group]?.push(to);
      return { group, from: forkOf.tables[group]?.[full] ?? NONE, to };
    });
  }

  /** Takes pages for `count` more tokens; false, and nothing taken beyond what it keeps, where there are too few. */
  reserve(cache: PageGroups, count: number): boolean {
    const wanted = Math.ceil((this.computed + count) / PAGE_TOKENS);
    while (this.pages.length < wanted) {
      const pages = cache.take();
      if (pages === undefined) return false;
      for (const [group, page] of pages.entries()) this.tables[group]?.push(page);
    }
    return true;
  }

  /** Takes pages for `count` more tokens and keeps them until `letGo`; false, and none kept, where there are too few. */
  keep(cache: PageGroups, count: number): boolean {
    if (!this.reserve(cache, count)) return false;
    this.#keptTo = this.computed + count;
    return true;
  }

  /** Gives back what `keep` took and nothing was computed for. */
  letGo(cache: PageGroups): void {
    this.#keptTo = 0;
    this.trim(cache);
  }

  /** Counts tokens as computed, publishes the pages that became full, and gives back those that no window reaches any more. */
  advance(cache: PageGroups, count: number): void {
    for (let i = this.computed; i < Math.min(this.computed + count, this.promptLength); i++) {
      if (this.#came[i] !== COMPUTED) this.computedTokens++;
      this.#came[i] = COMPUTED;
    }
    this.computed += count;
    this.options.onComputed?.(this.computed);
    this.publish(cache);
    for (const [group, { pool, window }] of cache.groups.entries()) {
      const table = this.tables[group] ?? [];
      // The row before the next one may be computed again, by another answer to the same prompt.
      const end = Math.min(firstPageOf(Math.max(this.computed - 1, 0), window), table.length);
      for (let i = this.#behind[group] ?? 0; i < end; i++) {
        pool.release(table[i] ?? NONE);
        table[i] = NONE;
        this.#behind[group] = i + 1;
      }
    }
  }

  /** Names the pages that are full. All computed tokens must be the sequence's for good: nothing is rolled back behind it. */
  publish(cache: PageGroups): void {
    if (!cache.shares) return;
    for (let i = this.#keys.length; (i + 1) * PAGE_TOKENS <= this.computed; i++) {
      const key = pageKey(this.#keys[i - 1] ?? "", this.#pageRows(i));
      this.#keys.push(key);
      for (const [group, { pool }] of cache.groups.entries()) {
        const page = this.tables[group]?.[i] ?? NONE;
        if (page !== NONE) pool.publish(page, key);
      }
    }
  }

  /**
   * Takes `tokens` for its own, which differ from them behind its published pages at most: what was computed of others is forgotten.
   */
  rollBack(cache: PageGroups, tokens: readonly number[]): void {
    let same = this.#keys.length * PAGE_TOKENS;
    while (same < tokens.length && this.tokens[same] === tokens[same]) same++;
    this.tokens.length = same;
    for (let i = same; i < tokens.length; i++) this.tokens.push(tokens[i] ?? Number.NaN);
    this.computed = Math.min(this.computed, same);
    this.trim(cache);
    const reaches = ({ window }: PageGroup, group: number) =>
      firstPageOf(this.computed, window) >= (this.#behind[group] ?? 0);
    if (!cache.groups.every(reaches)) this.release(cache);
  }

  /** Gives back the pages behind what is computed: room for proposals that were not taken. */
  trim(cache: PageGroups): void {
    this.#giveBack(cache, Math.ceil(Math.max(this.computed, this.#keptTo) / PAGE_TOKENS));
  }

  /** Gives all pages back; what was computed is computed again should the sequence go on. */
  release(cache: PageGroups): void {
    this.#giveBack(cache, 0);
    this.#keys = [];
    this.#keptTo = 0;
    this.#behind.fill(0);
    this.computed = 0;
    this.options.onRelease?.();
  }

  /** The last page first: it is evicted first, and the pages before it stay a prefix that can be found. */
  #giveBack({ groups }: PageGroups, kept: number): void {
    for (const [group, { pool }] of groups.entries())
      for (const page of this.tables[group]?.splice(kept).reverse() ?? []) if (page !== NONE) pool.release(page);
  }

  /** All that page `index` depends on besides the pages before: its tokens, and how each was rotated. */
  #pageRows(index: number): Uint32Array {
    const { ropeVariant } = this.options;
    const first = index * PAGE_TOKENS;
    return Uint32Array.from({ length: 2 * PAGE_TOKENS }, (_, i) => {
      const position = first + (i % PAGE_TOKENS);
      return i < PAGE_TOKENS ? (this.tokens[position] ?? 0) : ropeVariant(this.passLength(position));
    });
  }
}
