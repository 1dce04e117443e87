/** What `ingle doctor` says of the start-up self-test: what passed on an adapter, when, and what is off there. */
import type { AdapterDescription } from "../device/adapters.ts";
import { AdapterUnavailableError } from "../device/errors.ts";
import type { KeptTexts } from "../device/files.ts";
import { openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { currentOutcomes, type Outcomes, selfTest, testsFor } from "../engine/selfTest.ts";
import type { Context } from "./command.ts";
import { bar } from "./progress.ts";

/** The self-test of an adapter as plain data. */
export interface SelfTestReport {
  readonly passed: number;
  /** All that a model may use there; what no run has used yet is not tried. */
  readonly tests: number;
  /** Date of the last one; null: none was tried. */
  readonly last: string | null;
  /** Ways of computing that are not used there. */
  readonly off: readonly string[];
  readonly failed: readonly { readonly title: string; readonly variant: string | null; readonly why: string }[];
}

/** What earlier runs found, of the kernels as they are. */
export async function selfTestReport(kept: KeptTexts, adapter: AdapterDescription): Promise<SelfTestReport> {
  return reportOf(await currentOutcomes(kept, adapter), testsFor(adapter).length);
}

function reportOf(outcomes: Outcomes, tests: number): SelfTestReport {
  const all = Object.entries(outcomes);
  const failed = all.flatMap(([title, { variant, why }]) => (why === "" ? [] : [{ title, variant, why }]));
  return {
    passed: all.length - failed.length,
    tests,
    last:
      all
        .map(([, { date }]) => date)
        .sort()
        .at(-1) ?? null,
    off: [...new Set(failed.flatMap(({ variant }) => (variant === null ? [] : [variant])))],
    failed,
  };
}

/** Tries everything on an adapter afresh; what came of it is kept. */
export async function runSelfTest(
  kept: KeptTexts,
  adapter: AdapterDescription,
  { reporter, signal }: Context,
): Promise<void> {
  const gpu = await openGpu({ adapter: String(adapter.index) });
  const onTest = (done: number, total: number) =>
    reporter.status(`${adapter.name}: self-test ${bar(done / total)} of ${total}`);
  try {
    await selfTest(gpu, new PipelineCache(gpu), testsFor(adapter), { kept, afresh: true, onTest, signal });
  } catch (error) {
    if (!(error instanceof AdapterUnavailableError)) throw error; // what is wrong is kept, and shown with the rest
  } finally {
    reporter.clear();
    gpu.close();
  }
}

/** The same in lines for people. */
export function selfTestLines({ passed, tests, last, off, failed }: SelfTestReport): string[] {
  if (last === null)
    return ["  self-test: none yet; a model's first run tries what it uses, `ingle doctor --self-test` everything"];
  const switched = off.length === 0 ? "" : ` · off: ${off.join(", ")}`;
  const untried = tests - passed - failed.length;
  const found = `${passed} passed, ${failed.length === 0 ? "none" : failed.length} failed`;
  return [
    `  self-test: ${found}, ${untried} not tried yet, the last on ${last.slice(0, 10)}${switched}`,
    ...failed.map(
      ({ title, variant, why }) => `  ${variant === null ? "wrong" : `${variant} is off`}: ${title}: ${why}`,
    ),
  ];
}
