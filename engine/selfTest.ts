/**
 * The start-up self-test: a model's kernels are tried on its adapter before they are used, and what passed is kept by adapter, driver
 * and the kernels' own text, so that it costs its time once.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import type { AdapterDescription } from "../device/adapters.ts";
import { AdapterUnavailableError, DeviceLostError, OutOfMemoryError } from "../device/errors.ts";
import type { KeptTexts } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import type { LayoutName } from "../kernels/formats/layout.ts";
import { MATMUL_ROWS } from "../kernels/fragments/matmul.ts";
import { type SelfTest, selfTests } from "../kernels/selfTests.ts";
import { Testbed } from "../kernels/testbed.ts";
import { rowsVariant } from "../kernels/variantNames.ts";
import { queriesFor, xFrom } from "../kernels/xFrom.ts";
import { matmulRows } from "../models/step.ts";
import { MAX_ROWS } from "./batch.ts";

/** What came of one test, as it is kept. */
export interface TestOutcome {
  /** Of the kernels that it ran. */
  readonly hash: string;
  readonly date: string;
  readonly variant: string | null;
  /** What failed, in words; "" if nothing. */
  readonly why: string;
}

/** Outcomes by the titles of the tests. */
export type Outcomes = Readonly<Record<string, TestOutcome>>;

/** What is tried, and who is told. */
export interface SelfTestOptions {
  readonly kept: KeptTexts;
  /** Whether what passed before is tried again. */
  readonly afresh?: boolean;
  readonly onTest?: (done: number, total: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Tests that concern the kernels, of a model with matrices of these layouts. */
export function testsOf(kernels: readonly CompiledKernel[], layouts: ReadonlySet<LayoutName>): SelfTest[] {
  const names = new Set(kernels.map(({ name }) => name));
  // Kernels of other layouts need not even be written out: that alone takes a tenth of a second.
  return selfTests([...layouts]).filter((test) => test.kernels.every(({ name }) => names.has(name)));
}

/** Tests of all that some model may use on the adapter in f32, nothing being off. */
export function testsFor(adapter: AdapterDescription): SelfTest[] {
  const gpu = { adapter, features: new Set(adapter.features), off: new Set<string>() };
  const rows = new Set(Array.from({ length: MAX_ROWS }, (_, i) => rowsVariant(matmulRows(gpu, i + 1))));
  const unused = MATMUL_ROWS.map(rowsVariant).filter((variant) => !rows.has(variant));
  return selfTests().filter(
    (test) =>
      (test.variant === null || !unused.includes(test.variant)) &&
      (test.xFrom === undefined || test.xFrom === xFrom(gpu)) &&
      (test.queriesFrom === undefined || test.queriesFrom.includes(queriesFor(gpu))),
  );
}

/** Outcomes on an adapter that are of the kernels as they are. */
export async function currentOutcomes(kept: KeptTexts, adapter: AdapterDescription): Promise<Outcomes> {
  const outcomes = await keptOutcomes(kept, adapter);
  const hashes = new Map(testsFor(adapter).map(({ kernels, test }) => [test.title, hashOf(kernels)]));
  return Object.fromEntries(Object.entries(outcomes).filter(([title, { hash }]) => hashes.get(title) === hash));
}

/**
 * Runs those of the tests that have not passed on this adapter yet, and switches off what gives other bits. Throws
 * AdapterUnavailableError where a kernel is wrong that nothing stands in for, and DeviceLostError.
 */
export async function selfTest(
  gpu: Gpu,
  pipelines: PipelineCache,
  tests: readonly SelfTest[],
  { kept, afresh = false, onTest, signal }: SelfTestOptions,
): Promise<Outcomes> {
  const before = await keptOutcomes(kept, gpu.adapter);
  const outcomes: Record<string, TestOutcome> = {};
  const wrong = new Set<string>();
  const bed = new Testbed(gpu, pipelines);
  try {
    for (const [done, it] of tests.entries()) {
      signal?.throwIfAborted();
      onTest?.(done, tests.length);
      // What is compared with a kernel that is wrong itself says nothing.
      if (it.kernels.slice(1).some(({ name }) => wrong.has(name))) continue;
      const hash = hashOf(it.kernels);
      const known = before[it.test.title];
      // What failed is tried again: it may have been for want of memory.
      const passed = !afresh && known?.hash === hash && known.why === "";
      const outcome = passed ? known : await tried(bed, it, hash);
      outcomes[it.test.title] = outcome;
      if (outcome.why !== "") wrong.add(it.kernels[0]?.name ?? "");
    }
  } finally {
    bed.close();
    const news = Object.entries(outcomes).some(([title, outcome]) => before[title] !== outcome);
    if (news)
      await kept.write(
        fileOf(gpu.adapter),
        JSON.stringify({ ...about(gpu.adapter), tests: { ...before, ...outcomes } }),
      );
  }
  for (const { variant, why } of Object.values(outcomes)) if (why !== "" && variant !== null) gpu.off.add(variant);
  const refused = Object.entries(outcomes).find(([, { variant, why }]) => why !== "" && variant === null);
  if (refused !== undefined) {
    throw new AdapterUnavailableError(
      `adapter "${gpu.adapter.name}": computes wrongly: ${refused[0]}: ${refused[1].why}; choose another adapter with --adapter, or update its driver`,
    );
  }
  return outcomes;
}

async function tried(bed: Testbed, { test, variant }: SelfTest, hash: string): Promise<TestOutcome> {
  let thrown: unknown;
  const run: typeof test.run = async (on) => {
    try {
      return await test.run(on);
    } catch (error) {
      thrown = error;
      throw error;
    }
  };
  const { why } = await bed.check({ ...test, run });
  if (thrown instanceof OutOfMemoryError) throw thrown; // that says nothing of the kernel
  const state = await Promise.race([bed.gpu.lost, Promise.resolve(undefined)]);
  if (state !== undefined)
    throw new DeviceLostError(`self-test "${test.title}": the device was lost: ${state.message}`);
  return { hash, date: new Date().toISOString(), variant, why };
}

/** What earlier runs found on an adapter, of whatever version; empty where nothing is kept. */
async function keptOutcomes(kept: KeptTexts, adapter: AdapterDescription): Promise<Outcomes> {
  const text = await kept.read(fileOf(adapter));
  if (text === undefined) return {};
  try {
    const { tests } = JSON.parse(text) as { tests?: unknown };
    if (typeof tests !== "object" || tests === null) return {};
    return Object.fromEntries(
      Object.entries(tests).filter((entry): entry is [string, TestOutcome] => isOutcome(entry[1])),
    );
  } catch {
    return {}; // cut short, or not ours
  }
}

function isOutcome(value: unknown): value is TestOutcome {
  if (typeof value !== "object" || value === null) return false;
  const { hash, date, why, variant } = value as Record<string, unknown>;
  return [hash, date, why].every((it) => typeof it === "string") && (variant === null || typeof variant === "string");
}

const about = ({ name, vendor, architecture, driver }: AdapterDescription) => ({ name, vendor, architecture, driver });

const fileOf = (adapter: AdapterDescription): string =>
  `self-test-${hex(JSON.stringify(about(adapter))).slice(0, 16)}.json`;

const hashOf = (kernels: readonly CompiledKernel[]): string => hex(kernels.map(({ code }) => code).join("\n"));

const hex = (text: string): string =>
  Array.from(sha256(new TextEncoder().encode(text)), (byte) => byte.toString(16).padStart(2, "0")).join("");
