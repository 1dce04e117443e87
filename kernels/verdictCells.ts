/** What came of a kernel's cases, in a row of a table: for the command and the page alike. */
import type { Verdict } from "./testbed.ts";

/** The head of that table; ">" sets a column to the right. */
export const VERDICT_HEAD = ["kernel", ">cases", ">passed", ">worst", ">limit", ">ms"] as const;

/** Cells of VERDICT_HEAD, of one kernel's cases, at least one: the worst is the one that used up most of its limit. */
export function verdictCells(kernel: string, cases: readonly Verdict[]): string[] {
  const { error, limit } = cases.reduce((a, b) => (share(b) > share(a) ? b : a));
  return [
    kernel,
    String(cases.length),
    String(cases.filter(({ passed }) => passed).length),
    limit === 0 ? (error === 0 ? "equal" : "differs") : error.toExponential(1),
    limit === 0 ? "equal" : limit.toExponential(0),
    String(Math.round(cases.reduce((sum, { milliseconds }) => sum + milliseconds, 0))),
  ];
}

/** Of its limit, how much a case has used up. */
function share({ error, limit }: Verdict): number {
  if (Number.isNaN(error)) return Number.POSITIVE_INFINITY;
  return limit === 0 ? (error === 0 ? 0 : Number.POSITIVE_INFINITY) : error / limit;
}
