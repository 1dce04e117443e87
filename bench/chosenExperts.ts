/** How often each expert was chosen in profiled steps. */
import type { ProfiledStep } from "../device/profiler.ts";

/** Of each mixture of experts in order of depth, how often each of its experts was chosen; a draft model's steps do not count. Empty where there are none. */
export function chosenCounts(steps: readonly ProfiledStep[], experts: number): number[][] {
  const own = steps.filter(({ title }) => !title.startsWith("draft: "));
  const mixtures = Math.max(0, ...own.map((step) => step.experts.length));
  return Array.from({ length: mixtures }, (_, mixture) => {
    const counts = new Array<number>(experts).fill(0);
    for (const id of own.flatMap((step) => step.experts[mixture] ?? [])) counts[id] = (counts[id] ?? Number.NaN) + 1;
    return counts;
  });
}

/** The head of the table; ">" sets a column to the right. */
export const CHOSEN_HEAD = [">mixture", ">choices", ">never", "times chosen, by expert"] as const;

/** Most experts whose counts have room in a line, in the order of their numbers; of more the most chosen are named. */
const IN_A_LINE = 32;
const NAMED = 10;

/** Counts as cells of CHOSEN_HEAD. */
export function chosenCells(counts: readonly (readonly number[])[]): string[][] {
  return counts.map((each, mixture) => {
    const total = each.reduce((sum, count) => sum + count, 0);
    const never = each.filter((count) => count === 0).length;
    return [String(mixture), String(total), String(never), each.length > IN_A_LINE ? mostOf(each) : each.join(" ")];
  });
}

/** "17: 40, 3: 31, …": ties go to the lowest number. */
function mostOf(each: readonly number[]): string {
  const ranked = each.map((count, id) => ({ count, id })).sort((a, b) => b.count - a.count || a.id - b.id);
  return `${ranked
    .slice(0, NAMED)
    .map(({ id, count }) => `${id}: ${count}`)
    .join(", ")}, …`;
}
