/**
 * Free runs: decoding steps that follow each other on the GPU, while the same sequences go on and nobody else has anything to do.
 *
 * What a step draws is what the next one reads: `advance` lays it out, so that nothing is written or waited for in between. Steps are
 * submitted by windows, each before the one before it has come back, and a window comes back at once. What it drew is then handed out
 * step by step, as if each had been waited for. A run ends at the border of a window: where somebody came, left or is done. What was
 * submitted until then is computed; of sequences that are done it is dropped, of others it counts.
 */
import { NONE } from "../kernels/kernel.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import type { Batch, Sample } from "./batch.ts";
import { handOut } from "./handOut.ts";
import type { Runner } from "./runner.ts";
import type { Schedule, Scheduled, Scheduler } from "./scheduler.ts";
import type { RowOutput } from "./sequence.ts";

/** Tokens of a window come together: readers see a jerk from this many milliseconds on. */
const WINDOW_MS = 30;
/** Steps of a window. */
export const MOST_STEPS = 16;
/** Tokens of a sequence in one run, for which pages are taken before it begins. */
const LONGEST_RUN = 128;

/** How much of what was measured before a window is still believed after it. */
const MEMORY = 0.75;

/** How many steps a window has. */
export class WindowLength {
  readonly #fixed: number | undefined;
  readonly #measured = new Map<number, { milliseconds: number; steps: number }>();

  /** `fixed`: what was asked for; undefined: what goes by the time that steps take. */
  constructor(fixed: number | undefined) {
    this.#fixed = fixed;
  }

  /** Windows of a batch of so many rows; one step until it is known how long that takes. */
  steps(rows: number): number {
    if (this.#fixed !== undefined) return this.#fixed;
    const { milliseconds, steps } = this.#measured.get(rows) ?? { milliseconds: WINDOW_MS, steps: 1 };
    return Math.min(Math.max(Math.floor((WINDOW_MS * steps) / milliseconds), 1), MOST_STEPS);
  }

  /** One took so long. A mean, not the least: one that was noticed late makes the one behind it look short. */
  learn(rows: number, steps: number, milliseconds: number): void {
    const before = this.#measured.get(rows) ?? { milliseconds: 0, steps: 0 };
    this.#measured.set(rows, {
      milliseconds: MEMORY * before.milliseconds + milliseconds,
      steps: MEMORY * before.steps + steps,
    });
  }
}

/** What a free run asks of a runner. */
export type StepsAhead = Pick<Runner, "prepare" | "runAhead">;

/** Is told how many milliseconds a step of so many rows took. */
export type Measured = (rows: number, milliseconds: number) => void;

/** How steps are run freely. */
export interface FreeRunOptions {
  /** Ways of computing that the adapter does without. */
  readonly off: ReadonlySet<string>;
  /** Steps of a window; undefined: what is right for its speed. */
  readonly window: number | undefined;
  readonly measured: Measured;
}

/** A window that was submitted. */
interface Window {
  readonly steps: number;
  readonly submitted: number;
  readonly outputs: Promise<readonly (readonly RowOutput[])[]>;
}

/** Decides which steps are run freely, and runs them. */
export class FreeRuns {
  readonly #runner: StepsAhead;
  readonly #scheduler: Scheduler;
  readonly #off: ReadonlySet<string>;
  readonly #length: WindowLength;
  readonly #measured: Measured;

  constructor(runner: StepsAhead, scheduler: Scheduler, { off, window, measured }: FreeRunOptions) {
    this.#length = new WindowLength(window);
    this.#measured = measured;
    this.#runner = runner;
    this.#scheduler = scheduler;
    this.#off = off;
  }

  /** How many steps may follow the schedule's without the CPU, itself included; their pages are taken. 1: it is a step like all others. */
  steps({ kind, entries, copies }: Schedule): number {
    if (copies.length > 0 || kind !== "generate" || this.#off.has(FREE_RUN) || !this.#scheduler.goesOn(entries))
      return 1;
    const most = entries.reduce((least, entry) => Math.min(least, stepsOf(entry)), LONGEST_RUN);
    return most > 1 ? this.#scheduler.ahead(entries, most) : 1;
  }

  /** Runs the batch of a schedule, and the steps behind it. Throws as a step does. */
  async run(schedule: Schedule, batch: Batch, steps: number): Promise<void> {
    const { entries } = schedule;
    await this.#runner.prepare(batch, steps);
    const windows: Window[] = [];
    let [submitted, arrived] = [0, 0];
    const submit = () => {
      const window = this.#submit(batch, submitted, steps - submitted);
      windows.push(window);
      submitted += window.steps;
    };
    submit();
    try {
      for (let window = windows.shift(); window !== undefined; window = windows.shift()) {
        if (submitted < steps && this.#scheduler.goesOn(entries)) submit();
        const outputs = await window.outputs;
        const now = performance.now();
        const took = now - Math.max(arrived, window.submitted);
        this.#length.learn(batch.bucket.rows, window.steps, took);
        this.#measured(batch.bucket.rows, took / window.steps);
        arrived = now;
        for (const step of outputs) this.#take(schedule, step);
      }
    } finally {
      await Promise.allSettled(windows.map(({ outputs }) => outputs)); // of one that failed: nothing may be on its way behind it
      this.#scheduler.letGo(entries);
    }
  }

  #submit(batch: Batch, first: number, most: number): Window {
    const steps = Math.min(this.#length.steps(batch.bucket.rows), most);
    const submitted = performance.now();
    const outputs = this.#runner.runAhead(batch, first, steps);
    outputs.catch(() => undefined); // told where it is awaited, unless the window before it failed
    return { steps, submitted, outputs };
  }

  /** Hands out a step and commits it, as the engine does. */
  #take(schedule: Schedule, outputs: readonly RowOutput[]): void {
    const samples = schedule.entries.map(newest);
    const finished = handOut(samples, { outputs, logits: [] }, (sequence) => this.#scheduler.remove(sequence));
    this.#scheduler.commit(schedule, finished);
  }
}

/** Steps that a sequence may decode in a row for all that is known beforehand; 1 where each has to be laid out. */
function stepsOf({ sequence, count, drafts }: Scheduled): number {
  const { tokens, computed, options } = sequence;
  const { ending, drafting, sampling } = options;
  const decodes = count === 1 && drafts.length === 0 && computed + 1 === tokens.length;
  // Rules that look at the text so far would need it on the GPU.
  if (!decodes || ending === undefined || sampling.rules?.history === true) return 1;
  return Math.min(ending.length - tokens.length, drafting?.plainSteps(sequence) ?? Infinity);
}

/** The row of a sequence's newest token. */
function newest({ sequence }: Scheduled): Sample {
  const position = sequence.tokens.length - 1;
  return { sequence, position, token: sequence.tokens[position] ?? Number.NaN, target: NONE, drafted: NONE };
}
