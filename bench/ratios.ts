/** Ratios of what was measured in one run, so that the machine's own speed drops out, beside what the project holds itself to. */

/** A ratio with what it should be. */
export interface Ratio {
  readonly what: string;
  readonly value: number;
  readonly aim: string;
  readonly holds: boolean;
}

/** A ratio that should not be less. */
export function atLeast(what: string, value: number, limit: number): Ratio {
  return { what, value, aim: `≥ ${limit}`, holds: value >= limit };
}

/** A ratio that should not be more. */
export function atMost(what: string, value: number, limit: number): Ratio {
  return { what, value, aim: `≤ ${limit}`, holds: value <= limit };
}

/** A ratio that should be 1, give or take a share. */
export function near(what: string, value: number, share: number): Ratio {
  return { what, value, aim: `1 ± ${share}`, holds: Math.abs(value - 1) <= share };
}

/** The head of the table; ">" sets a column to the right. */
export const RATIO_HEAD = ["what", ">ratio", ">aim", ""] as const;

/** Ratios as cells of RATIO_HEAD. */
export function ratioCells(ratios: readonly Ratio[]): string[][] {
  return ratios.map(({ what, value, aim, holds }) => [what, value.toFixed(2), aim, holds ? "holds" : "missed"]);
}
