/** One answer on its way out: from drawn ids to parts with text. */

import { NO_TOKEN } from "../kernels/sample.ts";
import { StopMatcher } from "../models/text/stopStrings.ts";
import type { Detokenizer, Tokenizer } from "../models/text/tokenizer.ts";
import { InvalidRequestError, NonFiniteError } from "./errors.ts";
import { PartQueue } from "./partQueue.ts";
import type { ResolvedRequest } from "./request.ts";
import type { RowOutput, Sequence } from "./sequence.ts";
import type { FinishReason, Part, PromptLogprobs, Timings, Usage } from "./types.ts";

/** What becomes of one choice of a request: its parts go to a queue, which it may share with other choices. */
export class AnswerStream {
  readonly #request: ResolvedRequest;
  readonly #detokenizer: Detokenizer | undefined;
  readonly #stops: StopMatcher;
  readonly #queue: PartQueue;
  readonly #started = performance.now();
  #firstAt = 0;
  #count = 0;
  /** Goes with the first part. Its prompt was computed for it alone, and not taken from anybody's pages. */
  prompt: PromptLogprobs | undefined;

  constructor(request: ResolvedRequest, tokenizer: Tokenizer | undefined, queue = new PartQueue()) {
    this.#queue = queue;
    this.#request = request;
    this.#detokenizer = tokenizer?.stream({ skipSpecial: true });
    this.#stops = new StopMatcher(request.stop);
  }

  /** Takes one drawn token, which joins the sequence; returns whether the answer ends with it. */
  take({ token, logprob, top, finite }: RowOutput, sequence: Sequence): boolean {
    if (!finite)
      throw new NonFiniteError(
        `generate: the logits after ${sequence.tokens.length} tokens are not finite; check the weights, or another adapter with --adapter`,
      );
    if (token === NO_TOKEN)
      throw new InvalidRequestError(
        `generate: allowedTokenIds, badWords and minTokens leave no token after ${sequence.tokens.length}; allow more`,
      );
    if (this.#count === 0) this.#firstAt = performance.now();
    sequence.tokens.push(token);
    this.#count++;
    const { text, finishReason } = this.#textOf(token);
    const part: Part = {
      choice: this.#request.sampling.choice,
      index: this.#count - 1,
      text,
      token,
      logprob,
      ...(this.#request.top > 0 ? { top } : {}),
      ...(this.prompt === undefined || this.#count > 1 ? {} : { prompt: this.prompt }),
      finishReason,
      ...(finishReason === null
        ? {}
        : { usage: this.#usage(sequence), timings: this.#timings(sequence), ...this.#seed(sequence) }),
    };
    this.#queue.push(part);
    return finishReason !== null;
  }

  #textOf(token: number): { text: string; finishReason: FinishReason | null } {
    const ended = this.#request.stopIds.has(token);
    const pushed = this.#matched(ended ? "" : (this.#detokenizer?.push(token) ?? ""));
    if (pushed.stopped) return { text: pushed.text, finishReason: "stop" };
    if (!ended && this.#count < this.#request.maxTokens) return { text: pushed.text, finishReason: null };
    // The end of an answer settles what was held back: half a character, half a stop string.
    const rest = this.#matched(this.#detokenizer?.end() ?? "");
    if (rest.stopped) return { text: pushed.text + rest.text, finishReason: "stop" };
    return { text: pushed.text + rest.text + this.#stops.end(), finishReason: ended ? "stop" : "length" };
  }

  /** Stop strings are looked for in what comes behind the first `minTokens` tokens. */
  #matched(text: string): { text: string; stopped: boolean } {
    return this.#count <= this.#request.minTokens ? { text, stopped: false } : this.#stops.push(text);
  }

  /** Tokens of the prompt, and those of them that it found: of several answers, the first one read it for all. */
  #read({ promptLength, cachedTokens }: Sequence): Pick<Usage, "promptTokens" | "cachedTokens"> {
    if (this.#request.sampling.choice > 0) return { promptTokens: 0, cachedTokens: 0 };
    return { promptTokens: promptLength, cachedTokens: this.prompt === undefined ? cachedTokens : 0 };
  }

  #usage(sequence: Sequence): Usage {
    const { proposed, accepted } = sequence;
    const usage = { ...this.#read(sequence), completionTokens: this.#count };
    return proposed === 0 ? usage : { ...usage, draft: { proposed, accepted } };
  }

  /** The seed, where it gives the answer again. */
  #seed({ chanced }: Sequence): Pick<Part, "seed"> {
    return chanced ? {} : { seed: this.#request.sampling.seed };
  }

  #timings(sequence: Sequence): Timings {
    const { promptTokens, cachedTokens } = this.#read(sequence);
    const computed = promptTokens - cachedTokens;
    const [promptMs, generatedMs] = [this.#firstAt - this.#started, performance.now() - this.#firstAt];
    return {
      promptMs,
      generatedMs,
      firstTokenMs: promptMs,
      promptTokensPerSecond: (1000 * computed) / promptMs,
      // The first token came with the prompt: what follows is what was decoded.
      tokensPerSecond: this.#count > 1 ? (1000 * (this.#count - 1)) / generatedMs : 0,
    };
  }

  /** Ends the queue with an error, after the parts that came before it. */
  fail(reason: unknown): void {
    this.#queue.fail(reason);
  }

  /** The queue's. */
  parts(): AsyncGenerator<Part, void, undefined> {
    return this.#queue.parts();
  }
}
