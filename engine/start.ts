/** Starting an engine up: model, device, memory plan, buffers, weights, kernels; what an `Engine` is made of. */
import type { Folder } from "../device/files.ts";
import { type Gpu, openGpu } from "../device/gpu.ts";
import { keptTexts } from "../device/keptTexts.ts";
import { type CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import type { LayoutName } from "../kernels/formats/layout.ts";
import { LOADING_KERNELS, loadWeights } from "../models/loadWeights.ts";
import { MAX_ROWS } from "./batch.ts";
import { cacheGroups } from "./cacheGroups.ts";
import { checkDraft } from "./draftVocabulary.ts";
import { AbortError, InvalidRequestError } from "./errors.ts";
import { checkKvType } from "./kvType.ts";
import { type LoadProgress, type ReadModel, readModel } from "./loadModel.ts";
import { type MemoryPlan, planMemory } from "./memoryPlan.ts";
import { openModel } from "./openModel.ts";
import { checkOptions, type EngineOptions, type SharedDevice } from "./options.ts";
import { Owned } from "./owned.ts";
import { pageBytes } from "./pageSizes.ts";
import { type PrecisionPlan, planPrecision } from "./precision.ts";
import { Runner } from "./runner.ts";
import type { SchedulerLimits } from "./scheduler.ts";
import { selfTest, testsOf } from "./selfTest.ts";
import { allocateStep, type StepMemory } from "./stepMemory.ts";
import { compileKernels, likelyBuckets, WARM_UP_STEPS, warmUp } from "./warmUp.ts";

/** Logits of a step are at most this, whatever the vocabulary. */
const MAX_LOGITS_BYTES = 32 * 2 ** 20;

/** How a model is started: on its own, or as the draft of one that is. */
export interface StartOptions extends EngineOptions {
  /** Whose tokens it proposes, on whose device. */
  readonly target?: Started;
}

/** A model that is ready for its first token. Whoever started it frees it. */
export interface Started {
  readonly read: ReadModel;
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
  readonly plan: MemoryPlan;
  /** Ids that it can draw. */
  readonly vocabulary: number;
  readonly kvType: KvType;
  readonly precision: PrecisionPlan;
  readonly limits: SchedulerLimits;
  readonly memory: StepMemory;
  readonly runner: Runner;
  /** Frees all of it, and closes the device where it is the engine's own. */
  free(): Promise<void>;
}

/** All that `Engine.load` does. Throws as it does. */
export async function start(model: string | Folder, options: StartOptions): Promise<Started> {
  checkOptions(options);
  const owned = new Owned();
  try {
    const { signal, onProgress } = options;
    const folder = await openModel(model, {
      signal,
      onProgress: (progress) => onProgress?.({ stage: "download", ...progress }),
    });
    const read = await readModel(folder, signal);
    try {
      if (options.target !== undefined) checkDraft(options.target.read, read);
      return await prepare(read, owned, options);
    } finally {
      await read.checkpoint.close();
    }
  } catch (cause) {
    await owned.free();
    if (options.signal?.aborted !== true || cause instanceof AbortError) throw cause;
    throw new AbortError("load: aborted by its signal", { cause });
  }
}

async function prepare(read: ReadModel, owned: Owned, options: StartOptions): Promise<Started> {
  const { target } = options;
  const { gpu, pipelines } =
    target ?? options.device ?? owned.add(await openDevice(options), (device) => device.gpu.close());
  if (target === undefined) options.profiler?.attach(gpu);
  checkPositions(read, options);
  const kvType = options.kvType ?? "f16";
  checkKvType(read.model.caches, kvType);
  const precision = planPrecision(gpu, options.precision, read.weights.matrices);
  const vocabulary = Math.min(read.config.vocab_size, target?.read.config.vocab_size ?? Number.POSITIVE_INFINITY);
  const most = stepLimits(gpu, vocabulary, options.rowsPerStep ?? MAX_ROWS);
  const plan = planOf(read, gpu, { kvType, sequences: most.sequences }, options);
  options.onPlan?.(plan, gpu.adapter);
  const limits = { ...most, sequences: plan.sequences };
  const memory = await allocateStep(gpu, read, { plan, kvType }, owned);
  const { buffers } = memory;
  const runner = owned.add(
    new Runner({
      gpu,
      pipelines,
      model: read.model,
      buffers,
      vocabulary,
      kvType,
      precision: precision.mode,
      profiler: options.profiler,
      title: target === undefined ? "" : "draft: ",
    }),
    (it) => it.destroy(),
  );
  const kernels = runner.kernelsOf(likelyBuckets(limits));
  await fill(read, { gpu, pipelines }, memory, kernels, options);
  const layouts = new Set(read.weights.matrices.map(({ layout }) => layout));
  await tryOut(runner, { gpu, pipelines }, { memory, limits, layouts }, options);
  return {
    read,
    gpu,
    pipelines,
    plan,
    vocabulary,
    kvType,
    precision,
    limits,
    memory,
    runner,
    free: () => owned.free(),
  };
}

function checkPositions({ location, model: { positions } }: ReadModel, { context }: StartOptions): void {
  if (positions === undefined || context === undefined || context <= positions) return;
  throw new InvalidRequestError(
    `context: is ${context}, expected at most ${positions}, the positions that ${location} learned`,
  );
}

/** What the model takes on the GPU. A draft has pages for as many tokens as its target, and no longer context. */
function planOf(
  read: ReadModel,
  gpu: Gpu,
  { kvType, sequences }: { readonly kvType: KvType; readonly sequences: number },
  { context, kvMemory, target }: StartOptions,
): MemoryPlan {
  const { caches, positions = Number.POSITIVE_INFINITY } = read.model;
  // A draft's sequences are rolled back, at times behind what a window reaches.
  const groups = cacheGroups(
    caches.map((cache) => (target !== undefined && "window" in cache ? { ...cache, window: null } : cache)),
  );
  const longest = Math.min(read.context, target?.plan.context ?? Number.POSITIVE_INFINITY);
  const pagesOfTarget = target?.plan.groups.map(({ pages }) => pages);
  return planMemory(gpu, { caches, groups }, read.weightBytes, longest, {
    context,
    kvMemory: pagesOfTarget === undefined ? kvMemory : Math.max(...pagesOfTarget) * pageBytes(caches, kvType),
    kvType,
    sequences,
    rotaryDims: read.config.ropes.map(({ rotary_dim }) => rotary_dim),
    positions,
  });
}

/** Streams the weights, while the kernels are compiled. */
async function fill(
  read: ReadModel,
  { gpu, pipelines }: SharedDevice,
  { buffers }: StepMemory,
  kernels: readonly CompiledKernel[],
  { onProgress, signal }: EngineOptions,
): Promise<void> {
  const tell = (stage: LoadProgress["stage"], loaded: number, total: number) => onProgress?.({ stage, loaded, total });
  let failed: { readonly reason: unknown } | undefined;
  // Some drivers compile one kernel after the other: first those that weights wait for.
  const needed = [...LOADING_KERNELS, ...kernels];
  const compiled = compileKernels(pipelines, needed, (done, total) => tell("kernels", done, total));
  compiled.catch((reason: unknown) => {
    failed = { reason };
  });
  const onBytes = (loaded: number) => {
    if (failed !== undefined) throw failed.reason; // weights may take minutes more, and would be for nothing
    tell("weights", loaded, read.checkpoint.bytes);
  };
  await loadWeights(gpu, pipelines, read.weights, buffers.aux, {
    onBytes,
    ...(signal === undefined ? {} : { signal }),
  });
  await compiled;
}

/** The self-test, until nothing more is off, then the warm-up. */
async function tryOut(
  runner: Runner,
  { gpu, pipelines }: SharedDevice,
  {
    memory: { words },
    limits,
    layouts,
  }: { readonly memory: StepMemory; readonly limits: SchedulerLimits; readonly layouts: ReadonlySet<LayoutName> },
  { onProgress, signal, kept }: EngineOptions,
): Promise<void> {
  const store = kept ?? (await keptTexts());
  let [total, off] = [0, -1];
  const tell = (loaded: number) => onProgress?.({ stage: "warm-up", loaded, total });
  while (off < gpu.off.size) {
    off = gpu.off.size;
    const tests = testsOf(runner.kernelsOf(likelyBuckets(limits)), layouts); // others are used where one is off
    total = tests.length + WARM_UP_STEPS;
    await selfTest(gpu, pipelines, tests, { kept: store, onTest: tell, signal });
  }
  await warmUp(runner, words, limits.rows, (done) => tell(total - WARM_UP_STEPS + done));
}

/** What a step may hold: rows whose logits are wanted are a power of two whose logits fit a buffer. */
function stepLimits({ limits }: Gpu, vocabulary: number, rows: number): SchedulerLimits {
  const row = Math.ceil(vocabulary / 32) * 32 * 4;
  const bytes = Math.min(MAX_LOGITS_BYTES, limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const samples = Math.max(Math.min(2 ** Math.floor(Math.log2(bytes / row)), rows), 1);
  return { rows, scoreRows: samples, sequences: samples };
}

async function openDevice({ adapter, limits }: EngineOptions): Promise<SharedDevice> {
  const gpu = await openGpu({
    ...(adapter === undefined ? {} : { adapter }),
    ...(limits === undefined ? {} : { limits }),
  });
  return { gpu, pipelines: new PipelineCache(gpu) };
}
