/** Where the time of profiled steps goes: by op, and between dispatches. */
import type { ProfiledStep } from "../device/profiler.ts";
import { placeOf, weightBytes } from "./chromeTrace.ts";

/** A line of the table; times in ms. */
export interface ProfileLine {
  readonly op: string;
  readonly dispatches: number;
  readonly milliseconds: number;
  /** Of all steps, gaps included. */
  readonly share: number;
  /** Bytes of whole matrices that were read. */
  readonly weightBytes: number;
}

/** Steps that compute the same: one kind of them has one table. */
export interface ProfileGroup {
  /** "tg64: 1 row, 1 sample" */
  readonly title: string;
  readonly steps: number;
  readonly milliseconds: number;
  readonly lines: readonly ProfileLine[];
}

/** Between the dispatches of a step: barriers, and the passes that timing needs. */
const BETWEEN_DISPATCHES = "(between dispatches)";
/** Between the end of a step and the begin of the next of the same test: read-back, scheduling, encoding. */
const BETWEEN_STEPS = "(before the step)";

/** Groups by time, largest first. The gap before a step is the step's. */
export function profileGroups(steps: readonly ProfiledStep[]): ProfileGroup[] {
  const groups = new Map<string, { step: ProfiledStep; gap: number }[]>();
  for (const [s, step] of steps.entries()) {
    const title = `${step.during}: ${step.title}`;
    const group = groups.get(title) ?? [];
    group.push({ step, gap: gapBefore(step, steps[s - 1]) });
    groups.set(title, group);
  }
  const summed = Array.from(groups, ([title, members]): ProfileGroup => {
    const lines = linesOf(members);
    const milliseconds = lines.reduce((sum, it) => sum + it.milliseconds, 0);
    return { title, steps: members.length, milliseconds, lines };
  });
  return summed.sort((a, b) => b.milliseconds - a.milliseconds);
}

/** Ops by time, then the gaps. Shares add up to 1. */
function linesOf(members: readonly { readonly step: ProfiledStep; readonly gap: number }[]): ProfileLine[] {
  const ops = new Map<string, { dispatches: number; nanoseconds: number; weightBytes: number }>();
  let [within, pairs, between] = [0, 0, 0];
  for (const { step, gap } of members) {
    between += gap;
    for (const [d, dispatch] of step.dispatches.entries()) {
      const { op } = placeOf(dispatch.label);
      const sum = ops.get(op) ?? { dispatches: 0, nanoseconds: 0, weightBytes: 0 };
      sum.dispatches++;
      sum.nanoseconds += dispatch.end - dispatch.begin;
      sum.weightBytes += weightBytes(dispatch);
      ops.set(op, sum);
      const before = step.dispatches[d - 1];
      if (before === undefined) continue;
      within += dispatch.begin - before.end;
      pairs++;
    }
  }
  const total = [...ops.values()].reduce((sum, { nanoseconds }) => sum + nanoseconds, within + between);
  const line = (op: string, dispatches: number, nanoseconds: number, bytes = 0): ProfileLine => {
    return { op, dispatches, milliseconds: nanoseconds / 1e6, share: nanoseconds / total, weightBytes: bytes };
  };
  const lines = Array.from(ops, ([op, it]) => line(op, it.dispatches, it.nanoseconds, it.weightBytes));
  lines.sort((a, b) => b.milliseconds - a.milliseconds);
  return [...lines, line(BETWEEN_DISPATCHES, pairs, within), line(BETWEEN_STEPS, members.length, between)];
}

/** Nanoseconds since the step before, if that belongs to the same. */
function gapBefore({ during, dispatches: [first] }: ProfiledStep, before: ProfiledStep | undefined): number {
  const last = before?.dispatches.at(-1);
  if (first === undefined || last === undefined || before?.during !== during) return 0;
  return Math.max(first.begin - last.end, 0);
}

/** The head of the table; ">" sets a column to the right. */
export const PROFILE_HEAD = ["op", ">dispatches", ">ms", ">share", ">µs each", ">GB/s"] as const;

/** Lines as cells of PROFILE_HEAD. */
export function profileCells(lines: readonly ProfileLine[]): string[][] {
  return lines.map(({ op, dispatches, milliseconds, share, weightBytes: bytes }) => [
    op,
    String(dispatches),
    milliseconds.toFixed(2),
    `${(100 * share).toFixed(1)} %`,
    dispatches === 0 ? "" : ((1000 * milliseconds) / dispatches).toFixed(1),
    bytes === 0 ? "" : (bytes / milliseconds / 1e6).toFixed(2),
  ]);
}
