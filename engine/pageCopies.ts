/** Copies of pages in all layers, as commands before a step. */
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PageCopy } from "./sequence.ts";

/** A layer's buffer of pages, its cache group, and the bytes of a page. */
export interface PagedLayer {
  readonly group: number;
  readonly buffer: GPUBuffer;
  readonly pageBytes: number;
}

/** Makes them. Whoever made it destroys it. */
export class PageCopies {
  readonly #gpu: Gpu;
  readonly #layers: readonly PagedLayer[];
  /** A page on its way: WebGPU copies from one buffer to another only. */
  #between: GPUBuffer | undefined;

  constructor(gpu: Gpu, layers: readonly PagedLayer[]) {
    this.#gpu = gpu;
    this.#layers = layers.filter(({ pageBytes }) => pageBytes > 0);
  }

  /** Appends them to the commands, one after the other. */
  encode(encoder: GPUCommandEncoder, copies: readonly PageCopy[]): void {
    for (const { group, from, to } of copies) {
      for (const { group: own, buffer, pageBytes } of this.#layers) {
        if (own !== group) continue;
        const between = this.#room();
        encoder.copyBufferToBuffer(buffer, from * pageBytes, between, 0, pageBytes);
        encoder.copyBufferToBuffer(between, 0, buffer, to * pageBytes, pageBytes);
      }
    }
  }

  #room(): GPUBuffer {
    this.#between ??= createBuffer(this.#gpu, {
      label: "page on its way",
      size: Math.max(...this.#layers.map(({ pageBytes }) => pageBytes)),
      usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    return this.#between;
  }

  destroy(): void {
    if (this.#between !== undefined) destroyBuffer(this.#gpu, this.#between);
    this.#between = undefined;
  }
}
