/** What became of an engine's requests: how many ended how, and the tokens of those that were answered, each counted where it happens. */
import type { Part, RequestStats, TokenStats } from "./types.ts";

/** The parts of a request's answers that its reader took, and what their usage says. */
export class Delivery {
  parts = 0;
  logprobs = 0;
  readonly usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };
  /** Answers whose last part was not taken. */
  #open: number;

  constructor(answers: number) {
    this.#open = answers;
  }

  get whole(): boolean {
    return this.#open === 0;
  }

  add({ logprob, usage }: Part): void {
    this.parts++;
    if (Number.isFinite(logprob)) this.logprobs++;
    if (usage === undefined) return;
    this.#open--;
    this.usage.promptTokens += usage.promptTokens;
    this.usage.cachedTokens += usage.cachedTokens;
    this.usage.completionTokens += usage.completionTokens;
  }
}

/** Counts of one engine. */
export class RequestCounts {
  readonly #requests = { begun: 0, finished: 0, failed: 0 };
  readonly #tokens = { prompt: 0, cached: 0, computed: 0, completion: 0, delivered: 0, logprobs: 0 };

  get requests(): RequestStats {
    return { ...this.#requests };
  }
  get tokens(): TokenStats {
    return { ...this.#tokens };
  }

  begin(): void {
    this.#requests.begun++;
  }

  fail(): void {
    this.#requests.failed++;
  }

  /** The end of a request for answers: it failed where one's last part was not taken. `computed` are the rows of its prompt. */
  ended({ parts, logprobs, usage, whole }: Delivery, computed: number): void {
    if (!whole) {
      this.fail();
      return;
    }
    this.#requests.finished++;
    this.#tokens.prompt += usage.promptTokens;
    this.#tokens.cached += usage.cachedTokens;
    this.#tokens.computed += computed;
    this.#tokens.completion += usage.completionTokens;
    this.#tokens.delivered += parts;
    this.#tokens.logprobs += logprobs;
  }

  /** A whole score of so many tokens, and the rows that it took. */
  scored(prompt: number, computed: number): void {
    this.#requests.finished++;
    this.#tokens.prompt += prompt;
    this.#tokens.computed += computed;
  }
}
