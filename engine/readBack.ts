/** What comes back of steps: a ring of two buffers, so that one is filled while the other is read. */

import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import { DeviceLostError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { powerOfTwo } from "../kernels/fragments/batch.ts";

const RING = 2;
const LEAST_BYTES = 4096;

/** The buffers, made as they are needed. Whoever made it destroys it. */
export class ReadBack {
  readonly #gpu: Gpu;
  readonly #ring: (GPUBuffer | undefined)[] = new Array<undefined>(RING);
  #next = 0;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** A buffer of at least so many bytes to copy to. What it was before the other one must have been read. */
  take(bytes: number): GPUBuffer {
    const at = this.#next++ % RING;
    const known = this.#ring[at];
    if (known !== undefined && known.size >= bytes) return known;
    if (known !== undefined) destroyBuffer(this.#gpu, known);
    const size = Math.max(LEAST_BYTES, powerOfTwo(bytes));
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const made = createBuffer(this.#gpu, { label: "read-back", size, usage });
    this.#ring[at] = made;
    return made;
  }

  /**
   * What `use` makes of the first bytes of a buffer, once the submission that fills it is through; `error` is what its error scopes
   * found. Throws that, or DeviceLostError; what waits in the other buffer is then lost as well.
   */
  async read<T>(
    buffer: GPUBuffer,
    bytes: number,
    error: Promise<Error | undefined>,
    use: (back: ArrayBuffer) => T,
  ): Promise<T> {
    const mapped = this.#gpu.waitFor(buffer.mapAsync(GPUMapMode.READ, 0, bytes));
    mapped.catch(() => undefined); // what the scopes say comes first
    await this.settled(error);
    await this.#arrived(mapped);
    try {
      return use(buffer.getMappedRange(0, bytes));
    } finally {
      buffer.unmap();
    }
  }

  /** Throws what the scopes of a submission found; buffers that may be of no use, or wait for their mapping, go with it. */
  async settled(error: Promise<Error | undefined>): Promise<void> {
    const failure = await error.catch((lost: unknown) => lost);
    if (failure === undefined) return;
    this.destroy();
    throw failure;
  }

  async #arrived(mapped: Promise<undefined>): Promise<void> {
    try {
      await mapped;
    } catch (cause) {
      const { message } = await Promise.race([this.#gpu.lost, Promise.resolve({ message: String(cause) })]);
      throw new DeviceLostError(`step: the device was lost before its results came: ${message}`, { cause });
    }
  }

  destroy(): void {
    for (const buffer of this.#ring.splice(0, RING, ...new Array<undefined>(RING)))
      if (buffer !== undefined) destroyBuffer(this.#gpu, buffer);
  }
}
