/** One request in the engine: its tokens, its pages, and how far it has been computed. */
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { type PageKey, type PagePool, pageKey } from "./pages.ts";
import type { TokenLogprob } from "./types.ts";

/** What the sampler needs, resolved: no field is optional any more. */
export interface SamplingParams {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly typicalP: number;
  readonly seed: number;
  /** Which of the answers to one prompt: each has random numbers of its own. */
  readonly choice: number;
  /** Whether the request gave the seed: then the same request draws the same tokens again, whatever else goes on. */
  readonly seeded: boolean;
  /** Penalties, biases and masks; null: there are none. */
  readonly rules: LogitRules | null;
}

/** Rules as the GPU reads them (kernels/rules.ts). */
export interface LogitRules {
  /** The same from the first token to the last. */
  readonly block: Uint32Array;
  /** Whether the sequence's tokens follow it. */
  readonly history: boolean;
}

/** Always the likeliest token. */
export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  seed: 0,
  choice: 0,
  seeded: false,
  rules: null,
};

/** What the scheduler asks of whoever proposes tokens for a sequence. */
export interface Drafting {
  /** Proposals that are worth their rows, in a step in which so many sequences decode. */
  wanted(sequence: Sequence, decoding: number): number;
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

/** A page whose content another one is to have. */
export interface PageCopy {
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
  readonly pages: number[] = [];
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

  /** Length of the pass that row `position` was part of: rope scalings may depend on it. */
  passLength(position: number): number {
    return Math.max(this.promptLength, position + 1);
  }

  /** Holds pages of earlier sequences that began with the same tokens, unless it has its own; at least one token is left to compute. */
  shareFrom(pool: PagePool): void {
    if (this.options.kind === "score" || this.pages.length > 0 || !pool.shares) return;
    let key: PageKey = "";
    while ((this.pages.length + 1) * PAGE_TOKENS < this.tokens.length) {
      key = pageKey(key, this.#pageRows(this.pages.length));
      const page = pool.share(key);
      if (page === undefined) break;
      this.pages.push(page);
      this.#keys.push(key);
    }
    this.computed = this.pages.length * PAGE_TOKENS;
    this.#countShared();
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
   * which both will write. Returns the copy that is to be made, if any: without a page for it, it computes that part itself.
   */
  fork(pool: PagePool): PageCopy | undefined {
    const { forkOf } = this.options;
    const last = this.promptLength - 1; // computed by each, which draws from its logits
    if (forkOf === undefined || this.#begun || this.pages.length > 0 || forkOf.computed < last) return undefined;
    const full = Math.floor(last / PAGE_TOKENS);
    this.pages.push(...forkOf.pages.slice(0, full));
    for (const page of this.pages) pool.hold(page);
    this.#keys = forkOf.#keys.slice(0, full);
    const from = forkOf.pages[full];
    const to = from === undefined || last % PAGE_TOKENS === 0 ? undefined : pool.take();
    this.computed = to === undefined ? full * PAGE_TOKENS : last;
    this.#countShared();
    if (from === undefined || to === undefined) return undefined;
    this.pages.push(to);
    return { from, to };
  }

  /** Takes pages for `count` more tokens; false, and nothing taken beyond what it keeps, where there are too few. */
  reserve(pool: PagePool, count: number): boolean {
    const wanted = Math.ceil((this.computed + count) / PAGE_TOKENS);
    while (this.pages.length < wanted) {
      const page = pool.take();
      if (page === undefined) return false;
      this.pages.push(page);
    }
    return true;
  }

  /** Takes pages for `count` more tokens and keeps them until `letGo`; false, and none kept, where there are too few. */
  keep(pool: PagePool, count: number): boolean {
    if (!this.reserve(pool, count)) return false;
    this.#keptTo = this.computed + count;
    return true;
  }

  /** Gives back what `keep` took and nothing was computed for. */
  letGo(pool: PagePool): void {
    this.#keptTo = 0;
    this.trim(pool);
  }

  /** Counts tokens as computed and publishes the pages that became full. */
  advance(pool: PagePool, count: number): void {
    for (let i = this.computed; i < Math.min(this.computed + count, this.promptLength); i++) {
      if (this.#came[i] !== COMPUTED) this.computedTokens++;
      this.#came[i] = COMPUTED;
    }
    this.computed += count;
    this.options.onComputed?.(this.computed);
    this.publish(pool);
  }

  /** Names the pages that are full. All computed tokens must be the sequence's for good: nothing is rolled back behind it. */
  publish(pool: PagePool): void {
    if (!pool.shares) return;
    for (let i = this.#keys.length; (i + 1) * PAGE_TOKENS <= this.computed; i++) {
      const key = pageKey(this.#keys[i - 1] ?? "", this.#pageRows(i));
      this.#keys.push(key);
      const page = this.pages[i];
      if (page !== undefined) pool.publish(page, key);
    }
  }

  /**
   * Takes `tokens` for its own, which differ from them behind its published pages at most: what was computed of others is forgotten.
   */
  rollBack(pool: PagePool, tokens: readonly number[]): void {
    let same = this.#keys.length * PAGE_TOKENS;
    while (same < tokens.length && this.tokens[same] === tokens[same]) same++;
    this.tokens.length = same;
    for (let i = same; i < tokens.length; i++) this.tokens.push(tokens[i] ?? Number.NaN);
    this.computed = Math.min(this.computed, same);
    this.trim(pool);
  }

  /** Gives back the pages behind what is computed: room for proposals that were not taken. */
  trim(pool: PagePool): void {
    const kept = Math.ceil(Math.max(this.computed, this.#keptTo) / PAGE_TOKENS);
    for (const page of this.pages.splice(kept).reverse()) pool.release(page);
  }

  /** Gives all pages back; what was computed is computed again should the sequence go on. */
  release(pool: PagePool): void {
    // The last page first: it is evicted first, and the pages before it stay a prefix that can be found.
    for (const page of this.pages.splice(0).reverse()) pool.release(page);
    this.#keys = [];
    this.#keptTo = 0;
    this.computed = 0;
    this.options.onRelease?.();
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
