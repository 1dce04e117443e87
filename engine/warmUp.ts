/** What a first token would wait for, done while loading: kernels compiled, and programs of the usual steps recorded and run once. */

import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import { powerOfTwo } from "../kernels/fragments/batch.ts";
import { type Bucket, emptyBatch } from "./batch.ts";
import type { Runner } from "./runner.ts";
import type { SchedulerLimits } from "./scheduler.ts";

const PLAIN = { splits: 0, kind: "generate", top: 0, routes: false, adjusted: false, verify: false } as const;
const DECODE = { ...PLAIN, oneRowEach: true, everyRow: true } as const;
const PROMPT = { ...PLAIN, oneRowEach: false, samples: 1, everyRow: false } as const;

const decode = (rows: number): Bucket => ({ ...DECODE, rows, samples: rows });
const prompt = (rows: number): Bucket => ({ ...PROMPT, rows });

/** Buckets whose programs together have every kernel that requests can need. */
export function likelyBuckets({ rows, scoreRows }: SchedulerLimits): Bucket[] {
  const most = powerOfTwo(rows);
  const sizes = Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);
  return [
    ...sizes.filter((size) => size <= scoreRows).map(decode),
    ...sizes.map(prompt),
    { ...decode(1), splits: 2 },
    { ...prompt(most), splits: 2 },
    { ...decode(1), kind: "score" },
    { ...decode(1), adjusted: true },
  ];
}

/** Compiles all of them at once. Throws GpuValidationError for one that does not compile. */
export async function compileKernels(
  pipelines: PipelineCache,
  kernels: readonly CompiledKernel[],
  onCompiled: (compiled: number, total: number) => void,
): Promise<void> {
  let compiled = 0;
  await Promise.all(
    kernels.map(async (kernel) => {
      await pipelines.get(kernel);
      onCompiled(++compiled, kernels.length);
    }),
  );
}

/** Steps that `warmUp` runs. */
export const WARM_UP_STEPS = 2;

/**
 * Runs a decoding step and one of a prompt, sampler included, on rows that belong to nobody: some drivers compile a kernel when it
 * is dispatched first. The prompt's is the shortest step with the kernels of the longest.
 */
export async function warmUp(
  runner: Runner,
  words: Uint32Array<ArrayBuffer>,
  rows: number,
  onStep: (done: number) => void,
): Promise<void> {
  let shortest = powerOfTwo(rows);
  const names = (bucket: Bucket) => runner.kernelsOf([bucket]).map(({ name }) => name);
  const wanted = names(prompt(shortest));
  const suffices = (size: number) => {
    const has = new Set(names(prompt(size)));
    return wanted.every((name) => has.has(name));
  };
  while (shortest > 1 && suffices(shortest / 2)) shortest /= 2;
  const steps = [decode(1), prompt(shortest)];
  for (const [done, bucket] of steps.entries()) {
    onStep(done);
    await runner.run(emptyBatch(bucket, words));
  }
  await runner.runAhead(emptyBatch(decode(1), words), 0, 1);
  onStep(WARM_UP_STEPS);
}
