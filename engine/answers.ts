/** The answers to one request: a sequence each, of which the first reads the prompt for all, and the parts that they make. */
import type { Tokenizer } from "../models/text/tokenizer.ts";
import { AnswerStream } from "./answerStream.ts";
import { PartQueue } from "./partQueue.ts";
import type { ResolvedRequest } from "./request.ts";
import type { Delivery } from "./requestCounts.ts";
import { type Drafting, Sequence } from "./sequence.ts";
import type { GenerateRequest, Part, PromptLogprobs } from "./types.ts";

/** What sequences of a request ask of their engine. */
export interface AnswersOptions {
  readonly tokenizer: Tokenizer | undefined;
  readonly ropeVariant: (length: number) => number;
  /** Whether a prompt's pages can be shared; else each answer reads it. */
  readonly shares: boolean;
  readonly drafting: () => Drafting | undefined;
  readonly onRelease: (sequence: Sequence) => void;
  readonly onPrompt: GenerateRequest["onPrompt"];
}

/** Made for one request. Whoever made them submits the sequences, in order, and removes them. */
export class Answers {
  readonly sequences: readonly Sequence[];
  readonly #queue: PartQueue;
  readonly #first: AnswerStream;

  constructor(request: ResolvedRequest, options: AnswersOptions) {
    this.#queue = new PartQueue(request.n);
    const made = Array.from({ length: request.n }, (_, choice) => {
      const own = { ...request, sampling: { ...request.sampling, choice } };
      return { request: own, stream: new AnswerStream(own, options.tokenizer, this.#queue) };
    });
    const [first] = made;
    if (first === undefined) throw new RangeError("answers: are none, expected one at least");
    this.#first = first.stream;
    const reader = sequenceOf(first.request, first.stream, options, undefined);
    const forkOf = options.shares ? reader : undefined;
    this.sequences = [reader, ...made.slice(1).map((one) => sequenceOf(one.request, one.stream, options, forkOf))];
  }

  /** Prompt tokens whose pages were there already. */
  get cachedTokens(): number {
    return this.prompt === undefined ? (this.sequences[0]?.cachedTokens ?? Number.NaN) : 0;
  }

  /** Prompt tokens that were computed by the one that reads it. */
  get computedTokens(): number {
    return this.sequences[0]?.computedTokens ?? Number.NaN;
  }

  /** Goes with the first part. */
  get prompt(): PromptLogprobs | undefined {
    return this.#first.prompt;
  }
  set prompt(scored: PromptLogprobs) {
    this.#first.prompt = scored;
  }

  /** Ends the parts with an error, after those that came before it. */
  fail(reason: unknown): void {
    this.#queue.fail(reason);
  }

  parts(delivery: Delivery): AsyncGenerator<Part, void, undefined> {
    return this.#queue.parts(delivery);
  }
}

function sequenceOf(
  { tokens, maxTokens, stopIds, priority, sampling, top }: ResolvedRequest,
  stream: AnswerStream,
  { ropeVariant, drafting, onRelease, onPrompt }: AnswersOptions,
  forkOf: Sequence | undefined,
): Sequence {
  const sequence: Sequence = new Sequence({
    tokens,
    kind: "generate",
    priority,
    forkOf,
    sampling,
    top,
    logits: false,
    experts: false,
    ropeVariant,
    ending: { length: tokens.length + maxTokens, stopIds },
    onOutput: (output) => stream.take(output, sequence),
    onComputed: (computed) => {
      if (sampling.choice === 0 && computed < tokens.length) onPrompt?.(computed, tokens.length);
    },
    drafting: drafting(),
    onRelease: () => onRelease(sequence),
    onError: (error) => stream.fail(error),
  });
  return sequence;
}
