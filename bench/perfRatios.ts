/** What kernels are judged by: a step's matmuls against the naive kernel, against one row, and against the adapter. */
import type { PerfRow } from "./kernelPerf.ts";
import { atLeast, atMost, type Ratio } from "./ratios.ts";
import { PROMPT_ROWS, ROWS, timesInStep } from "./realShapes.ts";

/** Time of all matmuls of a step by rows, where all of them were measured. */
export interface StepMatmuls {
  readonly rows: number;
  readonly milliseconds: number;
  /** The naive kernel's, which is timed for one row. */
  readonly naiveMilliseconds: number | null;
}

/** Sums over a step, for every number of rows that all of its matmuls were measured at. */
export function stepMatmuls(rows: readonly PerfRow[]): StepMatmuls[] {
  const names = new Set(rows.map(({ op }) => op).filter((name) => timesInStep(name) > 0));
  return ROWS.flatMap((count) => {
    const own = rows.filter((it) => it.rows === count && timesInStep(it.op) > 0);
    if (own.length < 5 || own.length < names.size) return [];
    const sum = (value: (row: PerfRow) => number) =>
      own.reduce((total, it) => total + timesInStep(it.op) * value(it), 0);
    return [
      {
        rows: count,
        milliseconds: sum(({ milliseconds }) => milliseconds),
        naiveMilliseconds: count === 1 ? sum(({ naive }) => naive?.milliseconds ?? Number.NaN) : null,
      },
    ];
  });
}

/** All ratios that the rows suffice for; the limits are those that the project holds itself to. */
export function perfRatios(rows: readonly PerfRow[]): Ratio[] {
  const steps = stepMatmuls(rows);
  const [one] = steps.filter((it) => it.rows === 1);
  const ratios: Ratio[] = [];
  if (one !== undefined) {
    const naive = (one.naiveMilliseconds ?? Number.NaN) / one.milliseconds;
    ratios.push(atLeast("a step's matmuls, one row: rate over the naive kernel's", naive, 3.5));
    for (const { rows: count, milliseconds } of steps) {
      const limit = { 4: 2, 8: 3.5 }[count];
      if (limit === undefined) continue;
      ratios.push(atMost(`a step's matmuls, ${count} rows over 1: time`, milliseconds / one.milliseconds, limit));
    }
  }
  const tiles = rows.filter((it) => it.rows === PROMPT_ROWS && it.fma_share !== null);
  if (tiles.length > 0) {
    const weight = (it: PerfRow) => timesInStep(it.op) * it.milliseconds;
    const total = tiles.reduce((sum, it) => sum + weight(it), 0);
    const share = tiles.reduce((sum, it) => sum + (weight(it) / total) * (it.fma_share ?? Number.NaN), 0);
    ratios.push(atLeast(`a prompt's matmuls, ${PROMPT_ROWS} rows: share of the adapter's fma rate`, share, 0.5));
  }
  return ratios;
}
