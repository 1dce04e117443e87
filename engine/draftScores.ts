/** Scores that a draft drew its proposals from, a row a proposal of a step: the verification reads them (kernels/verify.ts). */
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";

/** A buffer of rows, filled anew in each step. Whoever made it destroys it. */
export class DraftScores {
  readonly buffer: GPUBuffer;
  /** f32s of a row, of which the first are scores. */
  readonly stride: number;
  readonly vocabulary: number;
  readonly rows: number;
  readonly #gpu: Gpu;
  #used = 0;

  constructor(gpu: Gpu, { rows, stride, vocabulary }: Pick<DraftScores, "rows" | "stride" | "vocabulary">) {
    [this.#gpu, this.rows, this.stride, this.vocabulary] = [gpu, rows, stride, vocabulary];
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    this.buffer = createBuffer(gpu, { label: "draft scores", size: rows * stride * 4, usage });
  }

  /** All rows are free again. */
  begin(): void {
    this.#used = 0;
  }

  /** A row that is free, or undefined. */
  take(): number | undefined {
    return this.#used < this.rows ? this.#used++ : undefined;
  }

  destroy(): void {
    destroyBuffer(this.#gpu, this.buffer);
  }
}
