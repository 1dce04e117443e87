/** The buffers that a model's steps work on, all made before the first byte of the weights is read. */
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { allocateWeights, freeWeights } from "../models/allocateWeights.ts";
import type { StepBuffers } from "../models/step.ts";
import { type BatchMemory, batchWords, MAX_ROWS } from "./batch.ts";
import type { ReadModel } from "./loadModel.ts";
import type { MemoryPlan } from "./memoryPlan.ts";
import type { Owned } from "./owned.ts";
import { layerPageBytes } from "./pageSizes.ts";
import { RopeTable } from "./ropeTable.ts";
import { SampleLists } from "./sampleLists.ts";

/** Buffers of steps, and what the CPU writes to them. */
export interface StepMemory extends BatchMemory {
  /** Its batch is as long as the words. */
  readonly buffers: StepBuffers;
}

/** Makes them all, and the buffers of the weights, for `owned` to free. Throws OutOfMemoryError. */
export async function allocateStep(
  gpu: Gpu,
  { model, weights, config }: ReadModel,
  { plan, kvType }: { readonly plan: MemoryPlan; readonly kvType: KvType },
  owned: Owned,
): Promise<StepMemory> {
  const aux = owned.add(await allocateWeights(gpu, weights), (buffer) => freeWeights(gpu, weights, buffer));
  const make = async (label: string, size: number, usage = 0) =>
    owned.add(
      await allocateBuffer(gpu, { label, size, usage: usage | GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST }),
      (buffer) => destroyBuffer(gpu, buffer),
    );
  const kv: GPUBuffer[] = [];
  const groups = model.caches.map((_, layer) =>
    Math.max(
      plan.groups.findIndex(({ layers }) => layers.includes(layer)),
      0,
    ),
  );
  for (const [layer, cache] of model.caches.entries()) {
    const isState = cache.kind === "state";
    const pages = plan.groups[groups[layer] ?? 0]?.pages ?? 0;
    const size = isState ? plan.sequences * cache.bytes : pages * layerPageBytes(cache, kvType);
    kv.push(await make(`layers.${layer} ${isState ? "states" : "kv"}`, size, GPUBufferUsage.COPY_SRC));
  }
  const rope = owned.add(await RopeTable.create(gpu, config.ropes, plan.context, MAX_ROWS), (table) => table.destroy());
  const words = new Uint32Array(batchWords(plan.sequences, Math.ceil(plan.context / PAGE_TOKENS), plan.groups.length));
  const batch = await make("batch", words.byteLength);
  return { buffers: { batch, ropes: rope.buffers, aux, kv, groups }, rope, words, lists: new SampleLists() };
}
