/**
 * Prompt and generation speed, measured through `generate` as every user meets it: sampler, text and scheduling included.
 *
 * Requests are greedy and ignore the end of text. No repetition meets a cached prefix: prompts are random and never repeated, and
 * what the engine says of cached tokens is held against that.
 */
import type { EngineStats, GenerateRequest, Part, SpeculationWish, Usage } from "../engine/types.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { Random } from "../kernels/testbed.ts";
import { BenchError } from "./errors.ts";
import { randomPrompts, type SpeedTest, testName, tgPrompt, tgTokens } from "./speedTest.ts";

/** What is measured of an engine. */
export interface MeasuredEngine {
  generate(request: GenerateRequest): AsyncIterable<Part>;
  stats(): Pick<EngineStats, "device" | "preemptions">;
}

/** What all tests of a run share. */
export interface SpeedOptions {
  readonly repetitions: number;
  /** Ids of random prompts are below this. */
  readonly vocabulary: number;
  /** Rows that a step of the engine computes at most. */
  readonly rowsPerStep: number;
  readonly random: Random;
  /** Who proposes tokens in tests that are drafted; unset: what the engine does by itself. */
  readonly speculation?: SpeculationWish;
  /** What tests of generation go on from; unset: random ids. */
  readonly text?: readonly number[];
  readonly signal?: AbortSignal;
  /** Called before each repetition; −1 is the warm-up. */
  readonly onRepetition?: (test: SpeedTest, repetition: number) => void;
  /** Milliseconds; `performance.now` as unset. */
  readonly now?: () => number;
}

/** One repetition. Counts are of the timed part alone. */
export interface Repetition {
  readonly milliseconds: number;
  /** Of all requests together. */
  readonly tokensPerSecond: number;
  /** Prompt tokens that were computed: the timed ones of a prompt test, the untimed ones before a generation test. */
  readonly computedTokens: number;
  /** Prompt tokens that were not, the repetition's own depth left out: 0, or the repetition failed. */
  readonly cachedTokens: number;
  /** From the request to its first token, ms, one a request. */
  readonly firstTokenMs: readonly number[];
  /** Between a token and the next of its request, ms; none of a prompt test. */
  readonly betweenTokensMs: readonly number[];
  readonly dispatches: number;
  readonly submits: number;
  /** Bytes that came back from the GPU. */
  readonly bytesBack: number;
  /** Milliseconds that the CPU took to encode the dispatches. */
  readonly encodeMs: number;
}

/** A row of the table. */
export interface SpeedRow extends SpeedTest {
  /** "pp512", "tg64@d1024" */
  readonly name: string;
  readonly repetitions: readonly Repetition[];
  /** Why it failed: then the repetitions before the failed one are not to be quoted. */
  readonly error: string | null;
}

/**
 * Runs tests by turns, so that what else the machine does meets all of them: a warm-up of the same shape, then the repetitions. A
 * failure ends its row; the signal's reason is thrown.
 */
export async function measureSpeed(
  engine: MeasuredEngine,
  tests: readonly SpeedTest[],
  options: SpeedOptions,
): Promise<SpeedRow[]> {
  const rows = tests.map((test) => ({ ...test, name: testName(test), repetitions: [] as Repetition[] }));
  const errors = rows.map((): string | null => null);
  for (let i = -1; i < options.repetitions; i++) {
    for (const [at, row] of rows.entries()) {
      if (errors[at] !== null) continue;
      options.signal?.throwIfAborted();
      options.onRepetition?.(row, i);
      try {
        const measured = await (row.kind === "pp" ? prompt : generation)(engine, row, options);
        if (i >= 0) row.repetitions.push(measured);
      } catch (error) {
        options.signal?.throwIfAborted();
        errors[at] = error instanceof Error ? error.message : String(error);
      }
    }
  }
  return rows.map((row, at) => ({ ...row, error: errors[at] ?? null }));
}

/** Computes prompts behind `depth` tokens that were computed just before, untimed, and are found again in the cache. */
async function prompt(engine: MeasuredEngine, test: SpeedTest, options: SpeedOptions): Promise<Repetition> {
  const { batch, depth, tokens } = test;
  const prompts = randomPrompts(options.random, options.vocabulary, batch, depth + tokens);
  const past = depth === 0 ? [] : prompts.map((all) => all.slice(0, depth));
  const before = await askAll(engine, past, 1, options);
  checkCached(before, 0, "before the depth");
  const counts = engine.stats();
  const answers = await askAll(engine, prompts, 1, options);
  // The depth's whole pages are this sequence's own past, and the only ones that may be there.
  const own = Math.floor(depth / PAGE_TOKENS) * PAGE_TOKENS;
  checkCached(answers, own, "before the prompt");
  checkPreemptions(engine, counts);
  const computedTokens = answers.reduce((sum, { usage }) => sum + usage.promptTokens - usage.cachedTokens, 0);
  const start = Math.min(...answers.map((it) => it.start));
  const milliseconds = Math.max(...answers.map(({ tokens: [first] }) => first?.at ?? Number.NaN)) - start;
  return {
    milliseconds,
    tokensPerSecond: (1000 * computedTokens) / milliseconds,
    computedTokens,
    cachedTokens: answers.reduce((sum, { usage }) => sum + usage.cachedTokens - own, 0),
    firstTokenMs: answers.map(firstTokenMs),
    betweenTokensMs: [],
    ...difference(counts.device, engine.stats().device),
  };
}

/** Generates from the moment when every request has its first token, until each has had `tokens` more. */
async function generation(engine: MeasuredEngine, test: SpeedTest, options: SpeedOptions): Promise<Repetition> {
  const { text, random, vocabulary } = options;
  const prompts =
    text === undefined
      ? randomPrompts(random, vocabulary, test.batch, tgPrompt(test))
      : Array.from({ length: test.batch }, () => [...text]);
  const counts = engine.stats();
  const answers = await askAll(engine, prompts, tgTokens(test, options.rowsPerStep, text?.length), options, test);
  // A text that is read again is found again; none of that is timed.
  if (text === undefined) checkCached(answers, 0, "before the depth");
  checkPreemptions(engine, counts);
  const firsts = answers.flatMap(({ tokens: [first] }) => (first === undefined ? [] : [first]));
  const start = firsts.reduce((a, b) => (b.at > a.at ? b : a));
  const timed = answers.map(({ tokens }) => {
    const done = tokens.filter(({ at }) => at <= start.at).length;
    if (done + test.tokens > tokens.length) {
      throw new BenchError(
        `${testName(test)}: of ${test.batch} requests one had ended before the last began, expected all at once; try a smaller -b`,
      );
    }
    return tokens.slice(done - 1, done + test.tokens);
  });
  const lasts = timed.flatMap((tokens) => tokens.at(-1) ?? []);
  const end = lasts.reduce((a, b) => (b.at > a.at ? b : a));
  const milliseconds = end.at - start.at;
  return {
    milliseconds,
    tokensPerSecond: (1000 * test.batch * test.tokens) / milliseconds,
    computedTokens: answers.reduce((sum, { usage }) => sum + usage.promptTokens - usage.cachedTokens, 0),
    cachedTokens: answers.reduce((sum, { usage }) => sum + usage.cachedTokens, 0),
    firstTokenMs: answers.map(firstTokenMs),
    betweenTokensMs: timed.flatMap((tokens) => tokens.slice(1).map(({ at }, i) => at - (tokens[i]?.at ?? Number.NaN))),
    ...difference(start.counts, end.counts),
  };
}

type Counts = EngineStats["device"];

interface Asked {
  readonly start: number;
  /** When each token came, and the engine's counters then. */
  readonly tokens: readonly { readonly at: number; readonly counts: Counts }[];
  readonly usage: Usage;
}

const firstTokenMs = ({ start, tokens: [first] }: Asked): number => (first?.at ?? Number.NaN) - start;

/** All prompts at once, read to their ends. One that fails fails all, once none is running any more. */
async function askAll(
  engine: MeasuredEngine,
  prompts: readonly number[][],
  maxTokens: number,
  options: SpeedOptions,
  { drafted = false }: Pick<SpeedTest, "drafted"> = {},
): Promise<Asked[]> {
  const { speculation, ...shared } = options;
  const wish = drafted ? speculation : (false as const);
  const asked = { ...shared, ...(wish === undefined ? {} : { speculation: wish }) };
  const settled = await Promise.allSettled(prompts.map((tokens) => ask(engine, tokens, maxTokens, asked)));
  return settled.map((it) => {
    if (it.status === "rejected") throw it.reason;
    return it.value;
  });
}

async function ask(
  engine: MeasuredEngine,
  prompt: readonly number[],
  maxTokens: number,
  {
    signal,
    speculation,
    now = () => performance.now(),
  }: Pick<SpeedOptions, "signal" | "now"> & Pick<GenerateRequest, "speculation">,
): Promise<Asked> {
  const tokens: { at: number; counts: Counts }[] = [];
  let usage: Usage | undefined;
  const start = now();
  const request = {
    tokens: prompt,
    maxTokens,
    temperature: 0,
    ignoreEos: true,
    ...(signal === undefined ? {} : { signal }),
    ...(speculation === undefined ? {} : { speculation }),
  };
  for await (const part of engine.generate(request)) {
    tokens.push({ at: now(), counts: engine.stats().device });
    usage = part.usage;
  }
  if (usage === undefined || tokens.length !== maxTokens || usage.promptTokens !== prompt.length) {
    throw new BenchError(
      `generate: ended after ${tokens.length} tokens of a prompt of ${usage?.promptTokens}, expected ${maxTokens} of ${prompt.length}`,
    );
  }
  return { start, tokens, usage };
}

function checkCached(answers: readonly Asked[], expected: number, where: string): void {
  for (const { usage } of answers) {
    if (usage.cachedTokens === expected) continue;
    throw new BenchError(
      `prefix cache: ${usage.cachedTokens} of ${usage.promptTokens} prompt tokens were cached ${where}, expected ${expected}; ` +
        (usage.cachedTokens < expected ? "try a larger --kv-memory" : "try another --seed"),
    );
  }
}

function checkPreemptions(engine: MeasuredEngine, before: Pick<EngineStats, "preemptions">): void {
  const times = engine.stats().preemptions - before.preemptions;
  if (times > 0) {
    throw new BenchError(
      `kv cache: requests gave their pages up ${times} times, expected never; try a larger --kv-memory or a smaller -b`,
    );
  }
}

const difference = (from: Counts, to: Counts) => ({
  dispatches: to.dispatches - from.dispatches,
  submits: to.submits - from.submits,
  bytesBack: to.bytesRead - from.bytesRead,
  encodeMs: to.encodeMs - from.encodeMs,
});
