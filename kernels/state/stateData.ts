/** Steps of cases of kernels that keep a state: whose rows they have, in which order, and the batch that says so. */
import { ROW, ROW_WORDS } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";

/** Sequences and how their rows fall in steps. */
export interface StepsShape {
  /** Tokens that each sequence has before the first step. */
  readonly past: readonly number[];
  /** Rows of each sequence, step by step. */
  readonly steps: readonly (readonly number[])[];
  /** Rows of each step behind the last real one. */
  readonly padding: number;
}

/** One step: `indices` are its rows among those of all sequences, one sequence after the other. */
export interface StatefulStep {
  readonly rows: number;
  readonly batch: Uint32Array;
  readonly indices: readonly number[];
}

/** States that a layer has: one more than there are sequences, which nobody may touch. */
export const stateCount = ({ past }: StepsShape): number => past.length + 1;

/** Which state is a sequence's: not its own number, and the first is nobody's. */
export const stateOf = ({ past }: StepsShape, sequence: number): number => past.length - sequence;

/** Rows of each sequence in all steps. */
export const rowCounts = ({ past, steps }: StepsShape): number[] =>
  past.map((_, sequence) => steps.reduce((sum, counts) => sum + (counts[sequence] ?? 0), 0));

/** The steps of a shape. */
export function statefulSteps(shape: StepsShape): StatefulStep[] {
  const counts = rowCounts(shape);
  const begin = counts.map((_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0));
  const done = shape.past.map(() => 0);
  return shape.steps.map((step) => {
    const records: number[][] = [];
    const indices: number[] = [];
    step.forEach((count, sequence) => {
      for (let i = 0; i < count; i++) {
        const row = done[sequence] ?? Number.NaN;
        const position = (shape.past[sequence] ?? Number.NaN) + row;
        records.push(recordOf(position, records.length, stateOf(shape, sequence)));
        indices.push((begin[sequence] ?? Number.NaN) + row);
        done[sequence] = row + 1;
      }
    });
    for (let i = 0; i < shape.padding; i++) records.push(recordOf(0, NONE, 0));
    return { rows: records.length, batch: Uint32Array.from(records.flat()), indices };
  });
}

function recordOf(position: number, slot: number, state: number): number[] {
  const record = new Array<number>(ROW_WORDS).fill(0);
  record[ROW.position] = position;
  record[ROW.slot] = slot;
  record[ROW.state] = state;
  return record;
}

/** The step's rows of `data` (all rows, stride); NaN in those that only fill it up. */
export function rowsOfStep({ rows, indices }: StatefulStep, data: Float32Array, stride: number): Float32Array {
  const out = new Float32Array(rows * stride).fill(Number.NaN);
  for (const [row, index] of indices.entries())
    out.set(data.subarray(index * stride, (index + 1) * stride), row * stride);
  return out;
}

/** In a title: "past=0,5 steps=3,1/2,0 padding=1". */
export const stepsTitle = ({ past, steps, padding }: StepsShape): string =>
  `past=${past.join(",")} steps=${steps.map((counts) => counts.join(",")).join("/")} padding=${padding}`;

/** The same rows of each sequence in one step. */
export const atOnce = (shape: StepsShape): StepsShape => ({ ...shape, steps: [rowCounts(shape)] });

/** The same rows of each sequence one a step, all sequences together while they last. */
export function oneByOne(shape: StepsShape): StepsShape {
  const counts = rowCounts(shape);
  const steps = Array.from({ length: Math.max(...counts) }, (_, i) => counts.map((count) => (i < count ? 1 : 0)));
  return { ...shape, steps };
}
