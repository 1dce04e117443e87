/** How long the GPU itself says that dispatches took: begin and end of compute passes, by timestamp queries. */
import { createBuffer, destroyBuffer } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import { readBuffer } from "./readback.ts";

const STAMP_BYTES = 8; // a u64 of nanoseconds
/** A query set holds at most 4096 stamps. */
export const MAX_SPANS = 2048;

/**
 * A begin and an end for each of `spans` compute passes. One dispatch a pass gives the time of each dispatch.
 *
 *   pass = encoder.beginComputePass({ timestampWrites: timestamps.writes(i) }) …; timestamps.resolve(encoder); submit; read()
 */
export class Timestamps {
  readonly spans: number;
  readonly #gpu: Gpu;
  readonly #queries: GPUQuerySet;
  readonly #stamps: GPUBuffer;

  /** Throws RangeError on a device without timestamp-query, and outside 1 to 2048 spans. */
  constructor(gpu: Gpu, spans: number) {
    if (!Timestamps.supported(gpu)) {
      throw new RangeError(
        `timestamps: "${gpu.adapter.name}" was opened without timestamp-query; time on the CPU instead`,
      );
    }
    if (!Number.isInteger(spans) || spans < 1 || spans > MAX_SPANS) {
      throw new RangeError(`timestamps: ${spans} spans, expected 1 to ${MAX_SPANS}; time the program in parts`);
    }
    this.spans = spans;
    this.#gpu = gpu;
    this.#queries = gpu.device.createQuerySet({ type: "timestamp", count: 2 * spans });
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
    this.#stamps = createBuffer(gpu, { size: 2 * spans * STAMP_BYTES, usage, label: "timestamps" });
  }

  static supported(gpu: Gpu): boolean {
    return gpu.features.has("timestamp-query");
  }

  /** For the descriptor of the pass that is span `index`. */
  writes(index: number): GPUComputePassTimestampWrites {
    if (!Number.isInteger(index) || index < 0 || index >= this.spans) {
      throw new RangeError(`timestamps: span ${index}, expected 0 to ${this.spans - 1}`);
    }
    return { querySet: this.#queries, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 };
  }

  /** Ends the encoder's timing: to be called after its last pass. Spans whose pass did not run read as 0. */
  resolve(encoder: GPUCommandEncoder): void {
    encoder.resolveQuerySet(this.#queries, 0, 2 * this.spans, this.#stamps, 0);
  }

  /** Nanoseconds of each span, (spans). Waits for all submitted work. A clock that was set back gives 0, never less. */
  async read(): Promise<Float64Array> {
    const stamps = await this.stamps();
    return Float64Array.from({ length: this.spans }, (_, i) => {
      const [begin = 0n, end = 0n] = stamps.subarray(2 * i, 2 * i + 2);
      return Math.max(0, Number(end - begin));
    });
  }

  /** Begin and end of each span by the GPU's clock, (spans, 2): nanoseconds since a moment of its own. */
  async stamps(): Promise<BigUint64Array> {
    const raw = await readBuffer(this.#gpu, this.#stamps);
    return new BigUint64Array(raw.buffer, 0, 2 * this.spans);
  }

  destroy(): void {
    this.#queries.destroy();
    destroyBuffer(this.#gpu, this.#stamps);
  }
}
