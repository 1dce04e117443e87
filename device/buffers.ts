/** Buffers with their limits checked before they are made, and counted while they live. */
import { OutOfMemoryError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { insideErrorScopes } from "./scopes.ts";

/** What a new buffer is. `label` names it in messages. */
export interface BufferOptions {
  /** Bytes, above 0 and a multiple of 4. */
  readonly size: number;
  readonly usage: GPUBufferUsageFlags;
  readonly label: string;
  readonly mappedAtCreation?: boolean;
}

/**
 * Makes a zeroed buffer. The caller owns it and gives it to `destroyBuffer`. Throws RangeError for a size that no buffer has, and
 * OutOfMemoryError above the device's maxBufferSize: WebGPU itself calls that a validation error, and silently.
 * That memory ran out is not known here: `allocateBuffer` waits for it.
 */
export function createBuffer(gpu: Gpu, options: BufferOptions): GPUBuffer {
  const { size, usage, label, mappedAtCreation = false } = options;
  if (!Number.isSafeInteger(size) || size <= 0 || size % 4 !== 0) {
    throw new RangeError(`${label}: a buffer of ${size} bytes, expected a multiple of 4 above 0; pad it`);
  }
  const { maxBufferSize } = gpu.limits;
  if (size > maxBufferSize) {
    throw new OutOfMemoryError(
      `${label}: ${bytes(size)} in one buffer, expected at most ${bytes(maxBufferSize)} on "${gpu.adapter.name}"; ` +
        "split it, or choose another adapter",
    );
  }
  const buffer = gpu.device.createBuffer({ size, usage, label, mappedAtCreation });
  gpu.memory.add(buffer);
  return buffer;
}

/**
 * `createBuffer` for what is large (weights, KV pages): waits until the driver has said that there was memory, else throws
 * OutOfMemoryError with what is live and leaves nothing behind. Several may run at once.
 */
export async function allocateBuffer(gpu: Gpu, options: BufferOptions): Promise<GPUBuffer> {
  const { value: buffer, error } = insideErrorScopes(gpu, () => createBuffer(gpu, options), options.label);
  try {
    const failure = await error;
    if (failure === undefined) return buffer;
    if (!(failure instanceof OutOfMemoryError)) throw failure;
    throw new OutOfMemoryError(
      `${options.label}: no memory for ${bytes(options.size)} on "${gpu.adapter.name}", ` +
        `${bytes(gpu.memory.bytes - options.size)} of buffers are live; free some, or choose a smaller model or context`,
      { cause: failure },
    );
  } catch (thrown) {
    destroyBuffer(gpu, buffer);
    throw thrown;
  }
}

/** Frees a buffer of `createBuffer`. Doing so again does nothing. */
export function destroyBuffer(gpu: Gpu, buffer: GPUBuffer): void {
  if (gpu.memory.remove(buffer)) buffer.destroy();
}

/** A count of bytes for people: "1.5 GiB", and the exact number below 1 KiB. */
export function bytes(count: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), units.length - 1);
  const value = count / 1024 ** power;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[power]}`;
}
