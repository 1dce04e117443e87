/**
 * The rope tables on the GPU: a row a position, made on the CPU, and a few rows that are written step by step.
 *
 * Row p is that of a pass of p + 1 tokens, which is what decoding has. Where frequencies depend on the length of the pass
 * (dynamic, longrope), rows of a longer prompt that differ from it go into the scratch rows behind the table. A model whose
 * layers differ has several tables of one numbering, since a row of the batch names one row for all of them.
 */
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import { type RopeConfig, ropeFrequencies, ropeRow, ropeRowAt, ropesVariant, ropeVariant } from "../models/rope.ts";

/** Rows made and uploaded at once: a long table is never whole in memory. */
const SLICE = 4096;
/** Bound where a model has no rope: never read. */
const UNUSED_BYTES = 16;

export class RopeTable {
  /** One a rope, or one that is not used. */
  readonly buffers: readonly GPUBuffer[];
  readonly #gpu: Gpu;
  readonly #ropes: readonly RopeConfig[];
  readonly #context: number;
  #scratch = 0;

  private constructor(gpu: Gpu, ropes: readonly RopeConfig[], positions: number, buffers: readonly GPUBuffer[]) {
    this.#gpu = gpu;
    this.#ropes = ropes;
    this.#context = positions;
    this.buffers = buffers;
    ropes.forEach((rope, i) => {
      const buffer = buffers[i];
      if (buffer !== undefined) fill(gpu, buffer, rope, positions);
    });
  }

  /** `positions` rows and `scratchRows` more in each table. The caller owns it. Throws OutOfMemoryError and leaves nothing behind. */
  static async create(
    gpu: Gpu,
    ropes: readonly RopeConfig[],
    positions: number,
    scratchRows: number,
  ): Promise<RopeTable> {
    const sizes = ropes.map(({ rotary_dim }) => (positions + scratchRows) * rotary_dim * 4);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const buffers: GPUBuffer[] = [];
    try {
      for (const size of sizes.length === 0 ? [UNUSED_BYTES] : sizes)
        buffers.push(await allocateBuffer(gpu, { label: "rope table", size, usage }));
    } catch (error) {
      for (const buffer of buffers) destroyBuffer(gpu, buffer);
      throw error;
    }
    return new RopeTable(gpu, ropes, positions, buffers);
  }

  /** Forgets the rows of the last step. */
  beginStep(): void {
    this.#scratch = 0;
  }

  /** Index of the row for `position` in a pass of `length` tokens; writes it first where the tables have another. */
  rowOf(position: number, length: number): number {
    if (ropesVariant(this.#ropes, length) === ropesVariant(this.#ropes, position + 1)) return position;
    const index = this.#context + this.#scratch++;
    this.#ropes.forEach((rope, i) => {
      const row = ropeRow(rope, position, length) as Float32Array<ArrayBuffer>;
      const buffer = this.buffers[i];
      if (buffer !== undefined) this.#gpu.device.queue.writeBuffer(buffer, index * row.byteLength, row);
    });
    return index;
  }

  destroy(): void {
    for (const buffer of this.buffers) destroyBuffer(this.#gpu, buffer);
  }
}

function fill(gpu: Gpu, buffer: GPUBuffer, rope: RopeConfig, positions: number): void {
  let frequencies = ropeFrequencies(rope, 1);
  for (let first = 0; first < positions; first += SLICE) {
    const rows = Math.min(SLICE, positions - first);
    const slice = new Float32Array(rows * rope.rotary_dim);
    for (let position = first; position < first + rows; position++) {
      // Each position of a dynamic scaling has frequencies of its own; else they change once, if at all.
      if (position > 0 && ropeVariant(rope, position) !== ropeVariant(rope, position + 1))
        frequencies = ropeFrequencies(rope, position + 1);
      slice.set(ropeRowAt(frequencies, position), (position - first) * rope.rotary_dim);
    }
    gpu.device.queue.writeBuffer(buffer, first * rope.rotary_dim * 4, slice);
  }
}
