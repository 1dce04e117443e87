/** Starting an engine up: model, device, memory plan, weights and pages; what an `Engine` is made of. */
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Folder } from "../device/files.ts";
import { type Gpu, openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { type KvType, pageWords } from "../kernels/attention/kv_page.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { AbortError } from "./errors.ts";
import { type LoadedModel, loadModel, type ReadModel, readModel } from "./loadModel.ts";
import { type MemoryPlan, planMemory } from "./memoryPlan.ts";
import { openModel } from "./openModel.ts";
import { checkOptions, type EngineOptions, type SharedDevice } from "./options.ts";

/** A model on a device with the pages of its cache. Whoever started it frees it. */
export interface Started {
  readonly read: ReadModel;
  readonly gpu: Gpu;
  readonly plan: MemoryPlan;
  readonly kvType: KvType;
  readonly loaded: LoadedModel;
  /** Pages of each layer. */
  readonly kv: readonly GPUBuffer[];
  /** Frees weights and pages, and closes the device where it is the engine's own. */
  free(): void;
}

/** All of `Engine.load` but its first step. Throws as it does. */
export async function start(model: string | Folder, options: EngineOptions): Promise<Started> {
  checkOptions(options);
  try {
    return await onDevice(model, options);
  } catch (cause) {
    if (options.signal?.aborted !== true || cause instanceof AbortError) throw cause;
    throw new AbortError("load: aborted by its signal", { cause });
  }
}

async function onDevice(model: string | Folder, options: EngineOptions): Promise<Started> {
  const read = await readModel(await openModel(model), options.signal);
  try {
    const device = options.device ?? (await openDevice(options));
    const close = () => {
      if (options.device === undefined) device.gpu.close();
    };
    try {
      const started = await load(read, device, options);
      const free = () => {
        started.free();
        close();
      };
      return { ...started, free };
    } catch (error) {
      close();
      throw error;
    }
  } finally {
    await read.checkpoint.close();
  }
}

async function load(read: ReadModel, { gpu, pipelines }: SharedDevice, options: EngineOptions): Promise<Started> {
  options.profiler?.attach(gpu);
  const kvType = options.kvType ?? "f16";
  const wishes = {
    context: options.context,
    kvMemory: options.kvMemory,
    kvType,
    rotaryDims: read.config.ropes.map(({ rotary_dim }) => rotary_dim),
  };
  const plan = planMemory(gpu, read.model.caches, read.weightBytes, read.context, wishes);
  options.onPlan?.(plan, gpu.adapter);
  const loaded = await loadModel(gpu, pipelines, read, options);
  try {
    const kv = await allocatePages(gpu, read.model.caches, plan.pages, kvType);
    const free = () => {
      for (const buffer of kv) destroyBuffer(gpu, buffer);
      loaded.free();
    };
    return { read, gpu, plan, kvType, loaded, kv, free };
  } catch (error) {
    loaded.free();
    throw error;
  }
}

/** Pages of every layer. The caller owns them. */
async function allocatePages(
  gpu: Gpu,
  caches: readonly CacheDeclaration[],
  pages: number,
  kvType: KvType,
): Promise<readonly GPUBuffer[]> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const kv: GPUBuffer[] = [];
  try {
    for (const [layer, { kvHeads, headDim }] of caches.entries()) {
      const size = pages * pageWords(kvType, kvHeads, headDim) * 4;
      kv.push(await allocateBuffer(gpu, { label: `layers.${layer} kv`, size, usage }));
    }
    return kv;
  } catch (error) {
    for (const buffer of kv) destroyBuffer(gpu, buffer);
    throw error;
  }
}

async function openDevice({ adapter, limits }: EngineOptions): Promise<SharedDevice> {
  const gpu = await openGpu({
    ...(adapter === undefined ? {} : { adapter }),
    ...(limits === undefined ? {} : { limits }),
  });
  return { gpu, pipelines: new PipelineCache(gpu) };
}
