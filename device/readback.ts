/** Bytes back from the GPU, for tests, tools and what is asked for rarely. */
import { createBuffer, destroyBuffer } from "./buffers.ts";
import { DeviceLostError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { insideErrorScopes } from "./scopes.ts";

/**
 * Bytes [offset, offset + size) of a buffer with COPY_SRC, in a new array. Waits for all submitted work, so never inside a
 * token loop. Throws RangeError outside the buffer, GpuValidationError for a buffer that cannot be copied, DeviceLostError.
 */
export async function readBuffer(
  gpu: Gpu,
  buffer: GPUBuffer,
  offset = 0,
  size = buffer.size - offset,
): Promise<Uint8Array<ArrayBuffer>> {
  const label = buffer.label || "buffer";
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(size) ||
    offset < 0 ||
    size < 0 ||
    offset + size > buffer.size
  ) {
    throw new RangeError(`${label}: bytes ${offset} to ${offset + size}, expected a range within ${buffer.size}`);
  }
  if (size === 0) return new Uint8Array(0);
  const begin = offset - (offset % 4); // copies go by whole words
  const end = Math.min(Math.ceil((offset + size) / 4) * 4, buffer.size);
  // Nothing is awaited between the scopes, so that they see this copy's errors alone.
  const { value: staging, error } = insideErrorScopes(
    gpu,
    () => copyOut(gpu, buffer, begin, end - begin),
    `read ${label}`,
  );
  const mapped = map(gpu, staging, label);
  mapped.catch(() => undefined); // what the scopes say explains it, and comes first
  try {
    const failure = await error;
    if (failure !== undefined) throw failure;
    const words = await mapped;
    return new Uint8Array(words.slice(offset - begin, offset - begin + size));
  } finally {
    destroyBuffer(gpu, staging);
  }
}

/** Copies a range to a new staging buffer, which the caller destroys. */
function copyOut(gpu: Gpu, source: GPUBuffer, offset: number, size: number): GPUBuffer {
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  const staging = createBuffer(gpu, { size, usage, label: `${source.label} read back` });
  const encoder = gpu.device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, offset, staging, 0, size);
  gpu.device.queue.submit([encoder.finish()]);
  return staging;
}

async function map(gpu: Gpu, staging: GPUBuffer, label: string): Promise<ArrayBuffer> {
  try {
    await gpu.waitFor(staging.mapAsync(GPUMapMode.READ));
    return staging.getMappedRange();
  } catch (cause) {
    throw new DeviceLostError(`read ${label}: the device went away before the bytes came; open a new one`, { cause });
  }
}
