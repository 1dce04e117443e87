/** One GET that ends in a whole answer or in an error: retries what passes by itself, and never takes part of a body for all of it. */

import { SourceError } from "./errors.ts";

/** How files are fetched. */
export interface HttpOptions {
  readonly fetch: typeof fetch;
  /** Ends every request of the source when it aborts. */
  readonly signal?: AbortSignal | undefined;
  /** Sent with every request, for example an authorization. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Bytes that are kept in memory at most where a server answers no range requests; 512 MiB by default. */
  readonly wholeLimit?: number | undefined;
  /** Milliseconds without a byte after which a request is given up and made again; 30,000 by default. */
  readonly stallMs?: number | undefined;
  /** Waits between attempts; replaced in tests. */
  readonly sleep?: ((milliseconds: number, signal: AbortSignal | undefined) => Promise<void>) | undefined;
}

/** Waits before the second, third … attempt, in milliseconds. */
const BACKOFF = [500, 1000, 2000, 4000] as const;

/** Longest wait that a Retry-After may ask for, in milliseconds. */
const LONGEST_WAIT = 60_000;

// Statuses that say "later", not "no".
const PASSING_STATUS: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

const WHOLE_LIMIT = 512 * 1024 * 1024;
const STALL = 30_000;

// A fault that another attempt may not meet.
class PassingError extends Error {
  readonly status: number | undefined;
  readonly wait: number | undefined;
  constructor(message: string, answer?: { readonly status: number; readonly wait: number | undefined }) {
    super(message);
    this.status = answer?.status;
    this.wait = answer?.wait;
  }
}

/** One request: `name` is the URL as printed. */
export interface Request {
  readonly url: URL;
  readonly name: string;
  readonly range?: { readonly begin: number; readonly end: number } | undefined;
  /** End this request, beside the signal of the options. */
  readonly signals?: readonly (AbortSignal | undefined)[] | undefined;
  /** 5 by default. */
  readonly attempts?: number | undefined;
}

/** An answer whose body is still to be read, or dropped by `discard`. */
export class Answer {
  readonly response: Response;
  readonly #name: string;
  readonly #progress: () => void;

  constructor(name: string, response: Response, progress: () => void) {
    this.#name = name;
    this.response = response;
    this.#progress = progress;
  }

  /** The body, which must have exactly `length` bytes: fewer count as a dropped connection, more are SOURCE_RANGE. */
  async exactly(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let filled = 0;
    for await (const chunk of this.chunks()) {
      if (filled + chunk.length > length) {
        throw new SourceError(
          "SOURCE_RANGE",
          `${this.#name}: sent more than the ${length} bytes asked for; the server is broken`,
        );
      }
      bytes.set(chunk, filled);
      filled += chunk.length;
    }
    if (filled < length) throw new PassingError(`connection dropped after ${filled} of ${length} bytes`);
    return bytes;
  }

  /** The body, of unknown length and at most `limit` bytes: SOURCE_TOO_LARGE beyond. */
  async upTo(limit: number): Promise<Uint8Array> {
    const announced = this.#announced();
    if (announced !== undefined && announced > limit) throw tooLarge(this.#name, announced, limit);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.chunks()) {
      length += chunk.length;
      if (length > limit) throw tooLarge(this.#name, length, limit);
      chunks.push(chunk);
    }
    if (announced !== undefined && length < announced) {
      throw new PassingError(`connection dropped after ${length} of ${announced} bytes`);
    }
    return concat(chunks, length);
  }

  /** The first bytes of the body, for a message. */
  async opening(): Promise<Uint8Array> {
    for await (const chunk of this.chunks()) return chunk;
    return new Uint8Array(0);
  }

  /** Gives the connection back without reading the body. */
  async discard(): Promise<void> {
    await this.response.body?.cancel().catch(() => {}); // the answer is already refused; how its body ends does not matter
  }

  // Content-Length counts the encoded bytes, so it says nothing of a body that arrives decoded.
  #announced(): number | undefined {
    const text = this.response.headers.get("content-length");
    if (text === null || isEncoded(this.response) || !/^\d{1,15}$/.test(text)) return undefined;
    return Number(text);
  }

  /** The body as it comes. */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.response.body?.getReader();
    if (reader === undefined) return;
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.#progress();
        yield value;
      }
    } finally {
      await reader.cancel().catch(() => {}); // does nothing at the end of the body; before it, the rest is not wanted
    }
  }
}

/** The byte limit for whole files. */
export function wholeLimit(options: HttpOptions): number {
  return options.wholeLimit ?? WHOLE_LIMIT;
}

/** Whether the body is sent compressed: its ranges then count compressed bytes, of which nothing can be checked. */
export function isEncoded(response: Response): boolean {
  const encoding = response.headers.get("content-encoding");
  return encoding !== null && encoding !== "" && encoding.toLowerCase() !== "identity";
}

const PAGE = /^\s*<(!doctype\s+html|html|head|body)[\s>]/i;

/** Whether a file that begins so is a web page, whatever the status and type of its answer say. */
export function isPage(first: Uint8Array): boolean {
  return PAGE.test(new TextDecoder().decode(first.subarray(0, 256)));
}

/** "bytes 0-99/1234" as [begin, end) of size. Undefined where it is absent, hidden from scripts, or without a size. */
export function contentRange(response: Response): ContentRange | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(response.headers.get("content-range") ?? "");
  return match === null ? undefined : { begin: Number(match[1]), end: Number(match[2]) + 1, size: Number(match[3]) };
}

/** Which bytes [begin, end) of how many an answer holds. */
export interface ContentRange {
  readonly begin: number;
  readonly end: number;
  readonly size: number;
}

/**
 * Sends `request` and hands the answer to `use`, which must read or discard it. Answers that say "later", failures of the network
 * and bodies that end early are asked for again after a growing pause or the server's Retry-After. Throws SOURCE_NETWORK in the
 * end (SOURCE_RATE_LIMIT after HTTP 429), the reason of the signal that aborts, and what `use` throws.
 */
export async function get<T>(options: HttpOptions, request: Request, use: (answer: Answer) => Promise<T>): Promise<T> {
  const attempts = request.attempts ?? BACKOFF.length + 1;
  const signals = [options.signal, ...(request.signals ?? [])].filter((signal) => signal !== undefined);
  const sleep = options.sleep ?? pause;
  for (let attempt = 1; ; attempt++) {
    for (const signal of signals) signal.throwIfAborted();
    try {
      return await once(options, request, signals, use);
    } catch (error) {
      for (const signal of signals) signal.throwIfAborted();
      if (error instanceof SourceError) throw error;
      if (attempt >= attempts) throw gaveUp(request.name, attempts, error);
      const wait = error instanceof PassingError ? error.wait : undefined;
      await sleep(wait ?? BACKOFF[attempt - 1] ?? LONGEST_WAIT, AbortSignal.any(signals));
    }
  }
}

// One attempt, under a watchdog that every received chunk sets back.
async function once<T>(
  options: HttpOptions,
  request: Request,
  signals: readonly AbortSignal[],
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const abort = () => controller.abort(signals.find((signal) => signal.aborted)?.reason);
  for (const signal of signals) signal.addEventListener("abort", abort);
  const stallMs = options.stallMs ?? STALL;
  const stalled = () => controller.abort(new PassingError(`no byte came for ${stallMs} ms`));
  let watchdog = setTimeout(stalled, stallMs);
  const progress = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(stalled, stallMs);
  };
  try {
    const { fetch } = options; // as a method of the options, a browser's fetch is an illegal invocation
    const response = await fetch(request.url, {
      headers: requestHeaders(options, request),
      signal: controller.signal,
    });
    const answer = new Answer(request.name, response, progress);
    if (PASSING_STATUS.has(response.status)) {
      await answer.discard();
      const { status } = response;
      throw new PassingError(`HTTP ${status}`, { status, wait: retryAfter(response) });
    }
    return await use(answer);
  } finally {
    clearTimeout(watchdog);
    for (const signal of signals) signal.removeEventListener("abort", abort);
    controller.abort(); // whatever of the body was not read is not wanted any more
  }
}

// No If-Range or If-Match: a browser would ask the server's leave for those first, which many servers refuse.
function requestHeaders({ headers }: HttpOptions, { range }: Request): Record<string, string> {
  return { ...headers, ...(range === undefined ? {} : { range: `bytes=${range.begin}-${range.end - 1}` }) };
}

// Retry-After in milliseconds: seconds or a date, kept below LONGEST_WAIT.
function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("retry-after");
  if (text === null) return undefined;
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.min(Math.max(wait, 0), LONGEST_WAIT);
}

function gaveUp(name: string, attempts: number, cause: unknown): SourceError {
  const inner =
    cause instanceof Error && cause.cause instanceof Error ? `${cause.message}: ${cause.cause.message}` : undefined;
  const reason = inner ?? (cause instanceof Error ? cause.message : String(cause));
  const times = attempts === 1 ? "" : ` ${attempts} times`;
  if (cause instanceof PassingError && cause.status === 429) {
    const message = `HTTP 429${times}, the server wants fewer requests; try again in some minutes`;
    return new SourceError("SOURCE_RATE_LIMIT", `${name}: ${message}`, { cause });
  }
  return new SourceError(
    "SOURCE_NETWORK",
    `${name}: fetching failed${times}, last with "${reason}"; check the connection and try again`,
    { cause },
  );
}

function tooLarge(name: string, bytes: number, limit: number): SourceError {
  const mebibytes = (value: number) => `${(value / 2 ** 20).toFixed(0)} MiB`;
  const message = `the server answers no range requests and the file has ${mebibytes(bytes)} or more, ${mebibytes(limit)} are read whole at most`;
  return new SourceError(
    "SOURCE_TOO_LARGE",
    `${name}: ${message}; use a server with ranges, or download the folder first`,
  );
}

function concat(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
