/** How long steps take by their number of rows, as measured while they run. */
import { powerOfTwo } from "../kernels/fragments/batch.ts";

/** Samples kept a bucket: the middle one is what a step takes. The least would flatter single steps: those of free runs are means. */
const KEPT = 7;
/** Steps after which a bucket that was not met is unknown again: what was measured then may have been a busy moment. */
const FORGOTTEN = 1024;

interface Bucket {
  /** Milliseconds, the newest last. */
  readonly samples: number[];
  /** The middle one of them, found when one comes: it is asked for far more often. */
  middle: number | undefined;
  /** The first step records its program, or has its kernels compiled by the driver. */
  first: boolean;
  /** When it was met last, in steps. */
  met: number;
}

/** Milliseconds by number of rows, rounded up to a power of two as programs are. */
export class StepTimes {
  readonly #buckets = new Map<number, Bucket>();
  #steps = 0;

  add(rows: number, milliseconds: number): void {
    this.#steps++;
    const key = programRows(rows);
    const bucket = this.#buckets.get(key) ?? { samples: [], middle: undefined, first: true, met: 0 };
    this.#buckets.set(key, bucket);
    bucket.met = this.#steps;
    if (bucket.first) bucket.first = false;
    else bucket.samples.push(milliseconds);
    if (bucket.samples.length > KEPT) bucket.samples.shift();
    bucket.middle = bucket.samples.toSorted((a, b) => a - b)[bucket.samples.length >> 1];
  }

  /** Undefined where no step of so many rows was measured lately. */
  of(rows: number): number | undefined {
    const bucket = this.#buckets.get(programRows(rows));
    return bucket === undefined || this.#steps - bucket.met > FORGOTTEN ? undefined : bucket.middle;
  }

  /** What a step of so many rows takes at least: as one of fewer rows, where it is not known itself. */
  atLeast(rows: number): number {
    let least = 0;
    for (let size = 1; size <= programRows(rows); size *= 2) least = Math.max(least, this.of(size) ?? 0);
    return least;
  }
}

/** Rows of the program that a step of so many runs on. */
export const programRows = (rows: number): number => powerOfTwo(Math.max(rows, 1));
