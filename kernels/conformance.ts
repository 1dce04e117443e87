/** Proves the kernels on an adapter: every case against its reference, as plain data that a report can keep and cite. */
import type { AdapterDescription } from "../device/adapters.ts";
import { DeviceLostError } from "../device/errors.ts";
import { type GpuOptions, openGpu } from "../device/gpu.ts";
import type { CompiledKernel } from "../device/pipelines.ts";
import { allCases, namedCases } from "./cases.ts";
import { everyKernel } from "./kernelList.ts";
import { type Case, Testbed, type Verdict } from "./testbed.ts";
import { has } from "./xFrom.ts";

/** Some 540 cases, or all of more than 4,000. */
export const SUITES = ["named", "all"] as const;
export type Suite = (typeof SUITES)[number];

/** What to prove, where, and who is told of it. */
export interface ConformanceOptions extends Pick<GpuOptions, "adapter" | "limits" | "features"> {
  /** As unset, "named". */
  readonly suite?: Suite;
  /** Part of a case's title, or all of one. */
  readonly filter?: string;
  /** Called after each case. */
  readonly onVerdict?: (verdict: Verdict, index: number, total: number) => void;
  /** Stops between two cases; the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** The outcome of a run as plain data. */
export interface ConformanceReport {
  readonly adapter: AdapterDescription;
  readonly limits: "adapter" | "default" | Readonly<Record<string, number>>;
  readonly features: readonly string[];
  readonly suite: Suite;
  /** "" where every case of the suite ran. */
  readonly filter: string;
  readonly cases: readonly Verdict[];
  /** Titles of the cases that need what the device lacks, with what that is. */
  readonly skipped: readonly { readonly title: string; readonly needs: readonly string[] }[];
  readonly passed: number;
  readonly failed: number;
  /** Kernels that ran, variants by their names, in a fixed order. */
  readonly kernels: readonly string[];
  /** Pipelines compiled. */
  readonly pipelines: number;
  readonly milliseconds: number;
  /** SHA-256 in hex over each case's title and whether it passed, and over the code of the kernels that ran. */
  readonly hash: string;
}

/** The cases of a suite whose title is the filter or, if none is, has it in it. Throws RangeError where none has: nothing is not a pass. */
export function casesOf(suite: Suite, filter: string): Case[] {
  const cases = suite === "all" ? allCases() : namedCases();
  const exact = cases.filter(({ title }) => title === filter); // "seed=1" is part of "seed=12"
  const found = exact.length > 0 ? exact : cases.filter(({ title }) => title.includes(filter));
  if (found.length === 0) {
    throw new RangeError(
      `kernel cases: no title of the ${suite} suite has "${filter}" in it; try --all or a kernel's name`,
    );
  }
  return found;
}

/**
 * Opens the adapter, runs the cases one by one and closes it. A case that fails is a verdict; throws AdapterUnavailableError,
 * RangeError where the filter leaves nothing, DeviceLostError, or the signal's reason.
 */
export async function runConformance(options: ConformanceOptions = {}): Promise<ConformanceReport> {
  const { suite = "named", filter = "", onVerdict, signal, ...gpuOptions } = options;
  const start = performance.now();
  const listed = casesOf(suite, filter);
  signal?.throwIfAborted();
  const gpu = await openGpu(gpuOptions);
  const missing = ({ needs = [] }: Case) => needs.filter((need) => !has(gpu, need));
  const wanted = listed.filter((it) => missing(it).length === 0);
  const bed = new Testbed(gpu);
  let lost = "";
  void gpu.lost.then(({ message }) => {
    lost = message || "no reason given";
  });
  try {
    const cases: Verdict[] = [];
    for (const [index, it] of wanted.entries()) {
      signal?.throwIfAborted();
      const verdict = await bed.check(it);
      if (lost !== "") throw new DeviceLostError(`kernel case "${it.title}": the device was lost: ${lost}`);
      cases.push(verdict);
      onVerdict?.(verdict, index, wanted.length);
    }
    const ran = everyKernel().filter(({ name }) => bed.ran.has(name));
    const passed = cases.filter((verdict) => verdict.passed).length;
    return {
      adapter: gpu.adapter,
      limits: gpuOptions.limits ?? "adapter",
      features: [...gpu.features],
      suite,
      filter,
      cases,
      skipped: listed.map((it) => ({ title: it.title, needs: missing(it) })).filter(({ needs }) => needs.length > 0),
      passed,
      failed: cases.length - passed,
      kernels: ran.map(({ name }) => name),
      pipelines: bed.pipelines.size,
      milliseconds: performance.now() - start,
      hash: await hashOf(cases, ran),
    };
  } finally {
    bed.close();
    gpu.close();
  }
}

/** What a benchmark cites: the same cases passed with the same kernels. */
async function hashOf(cases: readonly Verdict[], ran: readonly CompiledKernel[]): Promise<string> {
  const lines = [
    ...cases.map(({ title, passed }) => `${passed ? "passed" : "failed"} ${title}`),
    ...ran.map(({ name, code }) => `${name}\n${code}`),
  ];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines.join("\n")));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
