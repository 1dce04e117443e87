/**
 * A profiler of replayed programs: when each dispatch began and ended by the GPU's own clock.
 *
 * It costs what it measures with: a pass a dispatch, and a read-back of stamps a step. So nothing is recorded before `start`, and
 * what is timed for its speed is timed without it.
 */
import { createBuffer, destroyBuffer } from "./buffers.ts";
import { AdapterUnavailableError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { type Dispatch, encodeTimed, type Program } from "./program.ts";
import { readBuffer } from "./readback.ts";
import { MAX_SPANS, Timestamps } from "./timestamps.ts";

/** Where a step leaves the experts of a mixture: u32 (rows, slots), of a row's slots the first `top_k` are those that were chosen. */
export interface ChosenExperts {
  readonly buffer: GPUBuffer;
  readonly slots: number;
  readonly top_k: number;
}

/** What else of a step a profile may keep. */
export interface StepDetails {
  /** Rows that are tokens; those behind them only fill the step up. */
  readonly rows: number;
  /** Of each mixture of experts in order of depth. */
  readonly experts: readonly ChosenExperts[];
}

/** What a runner lets encode its steps, if it has one. */
export interface StepEncoder {
  /** Whether it keeps which experts were chosen: the step's buffers then live to its end. */
  readonly wantsExperts?: boolean;
  /** Called once with the device, before anything is loaded on it. Throws where it is of no use there. */
  attach(gpu: Gpu): void;
  /** Encodes a step and returns what is to be called right after its submission; undefined where nothing was encoded. */
  encode(encoder: GPUCommandEncoder, program: Program, title: string, details: StepDetails): (() => void) | undefined;
}

/** A dispatch with nanoseconds since the first one of the profile. */
export interface ProfiledDispatch extends Pick<Dispatch, "label" | "kernel" | "grid" | "bound"> {
  readonly begin: number;
  readonly end: number;
}

/** One replay. */
export interface ProfiledStep {
  /** What was being done, as `start` was told. */
  readonly during: string;
  /** What the step computes: "1 row, 1 sample". */
  readonly title: string;
  readonly dispatches: readonly ProfiledDispatch[];
  /** Of each mixture of experts in order of depth: those that its tokens went to, one token after the other. */
  readonly experts: readonly (readonly number[])[];
}

/** A step whose stamps are on their way. */
interface Pending {
  readonly during: string;
  readonly title: string;
  readonly parts: readonly { readonly dispatches: readonly Dispatch[]; readonly timestamps: Timestamps }[];
  /** Copies of what `details` names, one behind the other. */
  readonly chosen: GPUBuffer | undefined;
  readonly details: StepDetails;
}

/** Records steps between `start` and `stop`, on the device that it was attached to. */
export class Profiler implements StepEncoder {
  readonly wantsExperts = true;
  #gpu: Gpu | undefined;
  #during: string | undefined;
  #steps: Promise<ProfiledStep>[] = [];
  #origin: bigint | undefined;

  /** Chooses the device. Throws AdapterUnavailableError where it has no timestamps. */
  attach(gpu: Gpu): void {
    if (!Timestamps.supported(gpu)) {
      throw new AdapterUnavailableError(
        `profile: "${gpu.adapter.name}" has no timestamp-query, expected an adapter whose dispatches can be timed; choose another with --adapter`,
      );
    }
    this.#gpu = gpu;
  }

  /** What is encoded from now on is recorded; `during` says what it is part of. */
  start(during: string): void {
    this.#during = during;
  }

  /** Records no more. */
  stop(): void {
    this.#during = undefined;
  }

  /** Encodes a program in timed passes; nothing, and returns undefined, while nothing is recorded. */
  encode(
    encoder: GPUCommandEncoder,
    { dispatches }: Pick<Program, "dispatches">,
    title: string,
    details: StepDetails = { rows: 0, experts: [] },
  ) {
    const [gpu, during] = [this.#gpu, this.#during];
    if (gpu === undefined || during === undefined) return undefined;
    const parts: Pending["parts"][number][] = [];
    for (let first = 0; first < dispatches.length; first += MAX_SPANS) {
      const part = dispatches.slice(first, first + MAX_SPANS);
      const timestamps = new Timestamps(gpu, part.length);
      encodeTimed(encoder, { dispatches: part }, timestamps);
      timestamps.resolve(encoder);
      parts.push({ dispatches: part, timestamps });
    }
    const chosen = copyChosen(gpu, encoder, details);
    return (): void => {
      const step = this.#read(gpu, { during, title, parts, chosen, details });
      step.catch(() => undefined); // told by `steps`
      this.#steps.push(step);
    };
  }

  /** All steps recorded so far, in order. Waits for the GPU. Throws DeviceLostError. */
  steps(): Promise<ProfiledStep[]> {
    return Promise.all(this.#steps);
  }

  async #read(gpu: Gpu, { during, title, parts, chosen, details }: Pending): Promise<ProfiledStep> {
    try {
      // One after the other in the order of the steps: the first stamp of the first step is the origin of all.
      const before = this.#steps.at(-1);
      const read = parts.map(({ timestamps }) => timestamps.stamps());
      const ids = chosen === undefined ? undefined : readBuffer(gpu, chosen);
      await before?.catch(() => undefined);
      const [bytes, ...stamps] = await Promise.all([ids, ...read]);
      const experts = bytes === undefined ? [] : chosenOf(new Uint32Array(bytes.buffer), details);
      const timed = parts.flatMap((part, p) => part.dispatches.map((it, i) => this.#timed(it, stamps[p], i)));
      return { during, title, dispatches: inOrder(timed), experts };
    } finally {
      for (const { timestamps } of parts) timestamps.destroy();
      if (chosen !== undefined) destroyBuffer(gpu, chosen);
    }
  }

  #timed({ label, kernel, grid, bound }: Dispatch, stamps: BigUint64Array | undefined, i: number): ProfiledDispatch {
    const [begin = 0n, end = 0n] = stamps?.subarray(2 * i, 2 * i + 2) ?? [];
    this.#origin ??= begin;
    return { label, kernel, grid, bound, begin: Number(begin - this.#origin), end: Number(end - this.#origin) };
  }
}

/** Copies the experts of a step behind its passes; undefined where there are none. */
function copyChosen(gpu: Gpu, encoder: GPUCommandEncoder, { rows, experts }: StepDetails): GPUBuffer | undefined {
  const words = experts.reduce((sum, { slots }) => sum + rows * slots, 0);
  if (words === 0) return undefined;
  const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const copy = createBuffer(gpu, { label: "chosen experts", size: 4 * words, usage });
  let at = 0;
  for (const { buffer, slots } of experts) {
    encoder.copyBufferToBuffer(buffer, 0, copy, at, 4 * rows * slots);
    at += 4 * rows * slots;
  }
  return copy;
}

/** What `copyChosen` copied, without the slots that every token has. */
function chosenOf(words: Uint32Array, { rows, experts }: StepDetails): number[][] {
  let at = 0;
  return experts.map(({ slots, top_k }) => {
    const first = at;
    at += rows * slots;
    return Array.from({ length: rows }, (_, row) => {
      const begin = first + row * slots;
      return [...words.subarray(begin, begin + top_k)];
    }).flat();
  });
}

/**
 * Dispatches that need nothing of each other may overlap on a GPU, and clocks are read in steps: each begins at the earliest where
 * the one before it ended, so that times add up.
 */
function inOrder(dispatches: readonly ProfiledDispatch[]): ProfiledDispatch[] {
  let now = Number.NEGATIVE_INFINITY;
  return dispatches.map((it) => {
    const begin = Math.max(it.begin, now);
    now = Math.max(it.end, begin);
    return { ...it, begin, end: now };
  });
}
