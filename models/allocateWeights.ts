/** The buffers of a planned checkpoint, all made before the first byte is read: what does not fit is known at once. */
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import type { Matrix } from "./matrix.ts";
import { blockBytes } from "./pieces.ts";
import type { WeightPlan } from "./weightPlan.ts";

/**
 * Gives every matrix its shards, and returns the f32 buffer of norms and biases; `loadWeights` fills them. All belong to the caller:
 * `freeWeights`. Throws OutOfMemoryError and leaves nothing behind.
 */
export async function allocateWeights(gpu: Gpu, plan: WeightPlan): Promise<GPUBuffer> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const make = (label: string, size: number) => allocateBuffer(gpu, { label, size, usage });
  try {
    for (const matrix of plan.matrices) {
      if (matrix.order !== undefined) matrix.orderBuffer = await make(`${matrix.name} order`, matrix.order.byteLength);
      const bytes = blockBytes(matrix);
      for (const { firstBlock, blocks } of shardBlocks(gpu, matrix)) {
        const words = await make(`${matrix.name} words`, blocks * bytes.words);
        const shard = { firstBlock, blocks, words, scales: undefined };
        matrix.shards = [...matrix.shards, shard]; // from here on `freeWeights` finds it
        if (bytes.scales === 0) continue;
        const scales = await make(`${matrix.name} scales`, blocks * bytes.scales);
        matrix.shards = matrix.shards.map((other) => (other === shard ? { ...shard, scales } : other));
      }
    }
    return await make("norms and biases", 4 * Math.max(plan.auxLength, 4));
  } catch (error) {
    freeWeights(gpu, plan, undefined);
    throw error;
  }
}

/** Destroys the buffers of a plan. */
export function freeWeights(gpu: Gpu, plan: WeightPlan, aux: GPUBuffer | undefined): void {
  for (const matrix of plan.matrices) {
    for (const { words, scales } of matrix.shards) {
      destroyBuffer(gpu, words);
      if (scales !== undefined) destroyBuffer(gpu, scales);
    }
    matrix.shards = [];
    if (matrix.orderBuffer !== undefined) destroyBuffer(gpu, matrix.orderBuffer);
    matrix.orderBuffer = undefined;
  }
  if (aux !== undefined) destroyBuffer(gpu, aux);
}

/** Blocks of each shard so that no buffer passes the device's limits. */
export function shardBlocks(gpu: Gpu, matrix: Matrix): { firstBlock: number; blocks: number }[] {
  const limit = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  const { words, scales } = blockBytes(matrix);
  const fit = Math.floor(limit / Math.max(words, scales) / matrix.unit) * matrix.unit;
  if (fit === 0) {
    const message = `${matrix.name}: ${matrix.unit * BLOCK_ROWS} rows take ${Math.max(words, scales) * matrix.unit} bytes, expected at most ${limit}`;
    throw new RangeError(`${message} in one binding of "${gpu.adapter.name}"`);
  }
  const count = Math.ceil(matrix.blocks / fit);
  return Array.from({ length: count }, (_, i) => ({
    firstBlock: i * fit,
    blocks: Math.min(fit, matrix.blocks - i * fit),
  }));
}
