/** One op of a model at one shape, ready to be proved and timed: what every kind of op gives the loop in kernelPerf.ts. */
import type { Arena } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import type { Program } from "../device/program.ts";

/** A device with what all ops share; frees their buffers. */
export interface PerfBed {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
  readonly arena: Arena;
}

/** An op at a shape and number of rows. */
export interface PerfOp {
  /** As in the model: "qkv_proj". */
  readonly name: string;
  /** "960 × 576 affine4/32" */
  readonly shape: string;
  /** Rows of x, or 1. */
  readonly rows: number;
  /** Bytes that one run must read. */
  readonly bytes: number;
  /** Multiplications and additions of one run; 0 where they are not what counts. */
  readonly flops: number;
  /** Weights times rows of one run; 0 for ops without weights. */
  readonly weightColumns: number;
  /** Records `copies` runs, each over data of its own, in one program. */
  build(bed: PerfBed, copies: number): Promise<BuiltOp>;
}

/** A recorded op on the device. */
export interface BuiltOp {
  readonly program: Program;
  /** The naive kernel over the same data, where the op is a matmul. */
  readonly naive: Program | undefined;
  /** Writes what the programs read: to be called before each of them, since their buffers are shared with other programs. */
  upload(): void;
  /** Largest deviation allowed and found, as NMSE, between both after each has run once; undefined without a naive one. */
  compare(
    run: (program: Program) => Promise<void>,
  ): Promise<{ readonly error: number; readonly limit: number } | undefined>;
  free(): void;
}

/** The title that `--filter` looks in. */
export const perfTitle = ({ name, shape, rows }: PerfOp): string => `${name} ${shape} M=${rows}`;

/** Buffers that are freed together. */
export class BufferSet {
  readonly #gpu: Gpu;
  readonly #buffers: GPUBuffer[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** A storage buffer with `data` in it. */
  add(label: string, data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>): GPUBuffer {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = createBuffer(this.#gpu, { label, size: Math.ceil(data.byteLength / 16) * 16, usage });
    this.#buffers.push(buffer);
    this.#gpu.device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  }

  free(): void {
    for (const buffer of this.#buffers.splice(0)) destroyBuffer(this.#gpu, buffer);
  }
}
