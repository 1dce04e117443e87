/**
 * Profiled steps as a trace that Perfetto and chrome://tracing open: one complete event a dispatch, one a step above them.
 *
 * Source: "Trace Event Format", the JSON object form. Times there are in µs.
 */
import type { ProfiledDispatch, ProfiledStep } from "../device/profiler.ts";

/** What trace viewers call a slice, or a name for a row of them. */
export interface TraceEvent {
  readonly name: string;
  readonly cat?: string;
  readonly ph: "X" | "M";
  readonly pid: 1;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args: Readonly<Record<string, unknown>>;
}

/** The file's content. */
export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  readonly otherData: Readonly<Record<string, unknown>>;
}

const STEPS = 1;
const DISPATCHES = 2;

/** The trace; `conditions` is kept with it. */
export function chromeTrace(
  steps: readonly ProfiledStep[],
  conditions: Readonly<Record<string, unknown>>,
): ChromeTrace {
  const traceEvents = [
    name("process_name", 0, "ingle"),
    name("thread_name", STEPS, "steps"),
    name("thread_name", DISPATCHES, "dispatches"),
    ...steps.flatMap((step, index) => [...stepEvent(step, index), ...step.dispatches.map((it) => event(it, index))]),
  ];
  return { traceEvents, displayTimeUnit: "ms", otherData: conditions };
}

function name(kind: "process_name" | "thread_name", tid: number, text: string): TraceEvent {
  return { name: kind, ph: "M", pid: 1, tid, args: { name: text } };
}

function stepEvent({ title, during, dispatches }: ProfiledStep, step: number): TraceEvent[] {
  const [first, last] = [dispatches[0], dispatches.at(-1)];
  if (first === undefined || last === undefined) return [];
  const time = slice(first.begin, last.end);
  const args = { step, during, dispatches: dispatches.length };
  return [{ name: title, cat: "step", ph: "X", pid: 1, tid: STEPS, ...time, args }];
}

function event(dispatch: ProfiledDispatch, step: number): TraceEvent {
  const { label, kernel, grid, begin, end } = dispatch;
  const { layer, op } = placeOf(label);
  const weights = weightBytes(dispatch);
  return {
    name: label,
    cat: op,
    ph: "X",
    pid: 1,
    tid: DISPATCHES,
    ...slice(begin, end),
    args: {
      step,
      ...(layer === undefined ? {} : { layer }),
      op,
      kernel,
      grid: grid.join(" × "),
      ...(weights === 0 ? {} : { weight_bytes: weights }),
    },
  };
}

const slice = (begin: number, end: number) => ({ ts: begin / 1000, dur: (end - begin) / 1000 });

/** The layer and the op of a label such as "layers.3 qkv_proj". */
export function placeOf(label: string): { readonly layer: number | undefined; readonly op: string } {
  const [, layer, op] = /^layers\.(\d+) (.+)$/.exec(label) ?? [];
  return { layer: layer === undefined ? undefined : Number(layer), op: op ?? label };
}

/** Bytes of the matrices that a dispatch reads whole: 0 for one that gathers rows of its matrix, or has none. */
export function weightBytes({ label, bound }: Pick<ProfiledDispatch, "label" | "bound">): number {
  if (placeOf(label).op.startsWith("embed")) return 0;
  return bound.reduce((sum, it) => (/ (words|scales|offsets)\b/.test(it.label) ? sum + it.bytes : sum), 0);
}
