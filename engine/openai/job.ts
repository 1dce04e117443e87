/** A checked request of one of the endpoints: it runs as events, and is told as one answer or as chunks. */
import { type ChoiceEnd, type ChoiceEvent, type Events, type Gathered, gather } from "./events.ts";
import { type Body, booleanField, checkNames, integerField, RequestFieldError } from "./fields.ts";
import type { CompletionUsage, RequestTimings } from "./shapes.ts";
import { requestTimings, requestUsage, type Totals } from "./usage.ts";

/** What a chunk of a stream may carry beside its choices. */
interface ChunkExtras {
  readonly usage?: CompletionUsage | null;
  readonly timings?: RequestTimings;
}

/** A request that is ready to run. */
export interface Job<Whole, Chunk extends ChunkExtras> {
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly choices: number;
  /** Answers to each prompt: choices with the same `floor(choice / n)` share one. */
  readonly n: number;
  /** Leaving the events, or `signal`, ends all of its work. */
  events(signal?: AbortSignal): Events;
  /** The whole answer. */
  whole(choices: readonly Gathered[], totals: Totals): Whole;
  /** What is sent of one event, which may be the `first` of its choice: none where nothing can be seen of it. */
  chunks(event: ChoiceEvent, first: boolean): Chunk[];
  /** The chunk without choices that ends a stream with `includeUsage`. */
  usageChunk(): Chunk;
}

const MAX_CHOICES = 128; // OpenAI's

/** Fields of how an answer is delivered: the same at both endpoints. */
export const DELIVERY_NAMES: readonly string[] = ["model", "n", "stream", "stream_options", "prompt_logprobs"];

/** How an answer is delivered. */
export interface Delivery {
  readonly n: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Best tokens at each place of the prompt, where its log-probabilities are wanted. */
  readonly promptTop: number | undefined;
}

/** Reads the fields of DELIVERY_NAMES but `model`. */
export function delivery(body: Body, maxTop: number): Delivery {
  const stream = booleanField(body, "stream");
  const options = body.stream_options ?? undefined;
  if (options !== undefined && !stream)
    throw new RequestFieldError("stream_options", "stream_options: is given without stream; leave it out");
  const promptTop = integerField(body, "prompt_logprobs", 0, maxTop);
  if (promptTop !== undefined && stream)
    throw new RequestFieldError("prompt_logprobs", "prompt_logprobs: has no place in a stream; leave stream out");
  return {
    n: integerField(body, "n", 1, MAX_CHOICES) ?? 1,
    stream,
    includeUsage: options !== undefined && booleanField(checkNames(options, ["include_usage"]), "include_usage"),
    promptTop,
  };
}

/** Runs a job to its end. */
export async function complete<Whole, Chunk extends ChunkExtras>(
  job: Job<Whole, Chunk>,
  events: Events,
): Promise<Whole> {
  const choices = await gather(events, job.choices);
  const ends = choices.map(({ end }) => end);
  return job.whole(choices, totals(job.n, ends));
}

/** Runs a job as chunks. Usage comes last where it was asked for, and timings with the last chunk. */
export async function* stream<Whole, Chunk extends ChunkExtras>(
  job: Job<Whole, Chunk>,
  events: Events,
): AsyncGenerator<Chunk, void, undefined> {
  const ends: (ChoiceEnd | undefined)[] = Array.from({ length: job.choices });
  const begun = new Set<number>();
  const extras = job.includeUsage ? { usage: null } : {};
  for await (const event of events) {
    ends[event.choice] ??= event.end;
    const last = event.end !== undefined && ends.every((end) => end !== undefined);
    const chunks = job.chunks(event, !begun.has(event.choice));
    begun.add(event.choice);
    for (const [i, chunk] of chunks.entries()) {
      const timed = last && !job.includeUsage && i === chunks.length - 1;
      yield { ...chunk, ...extras, ...(timed ? { timings: totals(job.n, ends).timings } : {}) };
    }
  }
  if (job.includeUsage) yield { ...job.usageChunk(), ...totals(job.n, ends) };
}

function totals(n: number, ends: readonly (ChoiceEnd | undefined)[]): Totals {
  return { usage: requestUsage(n, ends), timings: requestTimings(n, ends) };
}
