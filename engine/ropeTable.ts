/**
 * The rope table on the GPU: a row a position, made on the CPU, and a few rows that are written step by step.
 *
 * Row p is that of a pass of p + 1 tokens, which is what decoding has. Where frequencies depend on the length of the pass
 * (dynamic, longrope), rows of a longer prompt that differ from it go into the scratch rows behind the table.
 */
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import { type RopeConfig, ropeFrequencies, ropeRow, ropeRowAt, ropeVariant } from "../models/rope.ts";

/** Rows made and uploaded at once: a long table is never whole in memory. */
const SLICE = 4096;

export class RopeTable {
  readonly buffer: GPUBuffer;
  readonly #gpu: Gpu;
  readonly #rope: RopeConfig;
  readonly #context: number;
  #scratch = 0;

  /** `positions` rows and `scratchRows` more. Owns its buffer. */
  constructor(gpu: Gpu, rope: RopeConfig, positions: number, scratchRows: number) {
    this.#gpu = gpu;
    this.#rope = rope;
    this.#context = positions;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const size = (positions + scratchRows) * rope.rotary_dim * 4;
    this.buffer = createBuffer(gpu, { label: "rope table", size, usage });
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
      gpu.device.queue.writeBuffer(this.buffer, first * rope.rotary_dim * 4, slice);
    }
  }

  /** Forgets the rows of the last step. */
  beginStep(): void {
    this.#scratch = 0;
  }

  /** Index of the row for `position` in a pass of `length` tokens; writes it first where the table has another. */
  rowOf(position: number, length: number): number {
    if (ropeVariant(this.#rope, length) === ropeVariant(this.#rope, position + 1)) return position;
    const index = this.#context + this.#scratch++;
    const row = ropeRow(this.#rope, position, length) as Float32Array<ArrayBuffer>;
    this.#gpu.device.queue.writeBuffer(this.buffer, index * row.byteLength, row);
    return index;
  }

  destroy(): void {
    destroyBuffer(this.#gpu, this.buffer);
  }
}
