/**
 * Streams a planned checkpoint to the GPU: pieces are read, written and repacked there; none is kept.
 *
 * Peak memory of the CPU is one piece being read, whatever the size of a tensor; the queue keeps the order, so one staging
 * buffer serves all.
 */

import { Arena } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import { encode, Recorder } from "../device/program.ts";
import { bf16FromBits, f16FromBits } from "../kernels/formats/halves.ts";
import { BLOCK_ROWS, runCount } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { REPACK_LANES, REPACK_MODES, type RepackMode, repack } from "../kernels/repack.ts";
import type { Matrix, Part, Shard } from "./matrix.ts";
import type { VectorPart, WeightPlan } from "./weightPlan.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** Bytes read and uploaded at once, where a binding may be as large. */
const PIECE = 8 * 2 ** 20;

/** Who is told of progress, and what ends it. */
export interface LoadOptions {
  readonly signal?: AbortSignal;
  /** Bytes of the checkpoint read so far. */
  readonly onBytes?: (loaded: number) => void;
}

/** Fills the buffers of `allocateWeights`, `aux` being what it returned. They stay their owner's. */
export async function loadWeights(
  gpu: Gpu,
  pipelines: PipelineCache,
  plan: WeightPlan,
  aux: GPUBuffer,
  options: LoadOptions = {},
): Promise<void> {
  const upload = new Uploader(gpu, pipelines, options);
  try {
    for (const matrix of plan.matrices) await upload.matrix(matrix);
    await upload.vectors(plan, aux);
    await upload.settle();
  } finally {
    upload.close();
  }
}

/** Reads pieces into staging buffers and records their repacking. */
class Uploader {
  readonly #gpu: Gpu;
  readonly #pipelines: PipelineCache;
  readonly #options: LoadOptions;
  readonly #arena: Arena;
  readonly #staging: GPUBuffer[];
  /** Bytes of a staging buffer. */
  readonly #piece: number;
  #loaded = 0;
  readonly #errorsBefore: number;

  constructor(gpu: Gpu, pipelines: PipelineCache, options: LoadOptions) {
    this.#gpu = gpu;
    this.#pipelines = pipelines;
    this.#options = options;
    this.#arena = new Arena(gpu);
    this.#errorsBefore = gpu.uncaptured.length;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    this.#piece = Math.min(PIECE, 4 * Math.floor(gpu.limits.maxStorageBufferBindingSize / 4));
    this.#staging = ["weights", "biases"].map((label) =>
      createBuffer(gpu, { label: `staging ${label}`, size: this.#piece, usage }),
    );
  }

  async matrix(matrix: Matrix): Promise<void> {
    for (const part of matrix.parts) await this.#part(matrix, part);
  }

  async #part(matrix: Matrix, part: Part): Promise<void> {
    const { weight, scales, biases } = part;
    const wordsARow = runCount(matrix.cols) * layouts[matrix.layout].runWords;
    if (scales === undefined || biases === undefined) {
      const mode = matrix.layout === "f32" ? "f32" : "halves";
      return await this.#rows(matrix, part, [weight], mode, matrix.cols, wordsARow);
    }
    await this.#rows(matrix, part, [weight], matrix.layout === "affine4" ? "nibbles" : "bytes", wordsARow, wordsARow);
    const groups = matrix.cols / matrix.group;
    await this.#rows(
      matrix,
      part,
      [scales, biases],
      matrix.scaleType === "f32" ? "scales32" : "scales16",
      groups,
      groups,
    );
  }

  /** Reads whole rows in pieces and repacks each piece into the shards it falls in. */
  async #rows(
    matrix: Matrix,
    part: Part,
    tensors: readonly CheckpointTensor[],
    mode: RepackMode,
    sourceCols: number,
    outCols: number,
  ): Promise<void> {
    const [first] = tensors;
    if (first === undefined || part.rows === 0) return;
    const rowBytes = (first.end - first.begin) / part.rows;
    // Even, so that pieces of odd rows of halves begin at a word; and a row is a workgroup along y.
    const { maxComputeWorkgroupsPerDimension } = this.#gpu.limits;
    const most = Math.min(this.#piece / rowBytes, maxComputeWorkgroupsPerDimension ?? 65535);
    const step = Math.max(2 * Math.floor(most / 2), 2);
    for (let row = 0; row < part.rows; row += step) {
      const rows = Math.min(step, part.rows - row);
      for (const [i, tensor] of tensors.entries()) await this.#upload(tensor, row * rowBytes, rows * rowBytes, i);
      const params = {
        mode: REPACK_MODES.indexOf(mode),
        source_cols: sourceCols,
        out_cols: outCols,
        block_stride: part.blockStride,
      };
      await this.#repack(matrix, part, { row, rows }, params, mode.startsWith("scales"));
    }
  }

  async #upload(tensor: CheckpointTensor, begin: number, count: number, index: number): Promise<void> {
    const { signal, onBytes } = this.#options;
    const data = await tensor.source.read(tensor.begin + begin, tensor.begin + begin + count, signal);
    const staging = this.#staging[index];
    if (staging === undefined) throw new RangeError(`${tensor.name}: no staging buffer ${index}`);
    const whole = count - (count % 4);
    const { queue } = this.#gpu.device;
    queue.writeBuffer(staging, 0, data.buffer as ArrayBuffer, data.byteOffset, whole);
    if (whole < count) {
      const tail = new Uint8Array(4);
      tail.set(data.subarray(whole));
      queue.writeBuffer(staging, whole, tail);
    }
    this.#loaded += count;
    onBytes?.(this.#loaded);
  }

  async #repack(
    matrix: Matrix,
    part: Part,
    { row, rows }: { row: number; rows: number },
    params: { mode: number; source_cols: number; out_cols: number; block_stride: number },
    intoScales: boolean,
  ): Promise<void> {
    const recorder = new Recorder(this.#gpu, this.#pipelines);
    const [source, second] = this.#staging;
    if (source === undefined || second === undefined) throw new RangeError("staging buffers are closed");
    for (const shard of matrix.shards) {
      for (const run of runsIn(shard, part, row, rows)) {
        const out = intoScales ? shard.scales : shard.words;
        if (out === undefined) throw new RangeError(`${matrix.name}: no scales to write`);
        // Blocks count from the shard's first: a part that begins before the shard wraps around, and its blocks wrap back.
        const first_block = (part.firstBlock - shard.firstBlock) >>> 0;
        const source_offset = (run.row - row) * params.source_cols;
        repack.launch(recorder, {
          buffers: { source, second, out },
          params: { ...params, first_row: run.row, first_block, source_offset },
          grid: [Math.ceil(params.out_cols / REPACK_LANES), run.rows, 1],
        });
      }
    }
    const program = await recorder.finish(this.#arena);
    const encoder = this.#gpu.device.createCommandEncoder();
    encode(encoder, program);
    this.#gpu.device.queue.submit([encoder.finish()]);
    program.destroy();
  }

  /** Reads norms and biases, widens them to f32 and uploads them as one buffer. */
  async vectors({ vectors }: WeightPlan, aux: GPUBuffer): Promise<void> {
    const values = new Float32Array(aux.size / 4);
    for (const part of vectors) await this.#vector(part, values);
    this.#gpu.device.queue.writeBuffer(aux, 0, values);
  }

  async #vector({ tensor, at }: VectorPart, values: Float32Array): Promise<void> {
    const data = await tensor.source.read(tensor.begin, tensor.end, this.#options.signal);
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const count = tensor.shape[0] ?? 0;
    for (let i = 0; i < count; i++) values[at(i)] = readElement(view, tensor.dtype, i);
    this.#loaded += data.byteLength;
    this.#options.onBytes?.(this.#loaded);
  }

  /** Waits for the last piece. Throws what the GPU met on the way: weights that were never written are zeros, not an error. */
  async settle(): Promise<void> {
    await this.#gpu.device.queue.onSubmittedWorkDone();
    const error = this.#gpu.uncaptured[this.#errorsBefore];
    if (error !== undefined) throw error;
  }

  close(): void {
    this.#arena.destroy();
    for (const buffer of this.#staging.splice(0)) destroyBuffer(this.#gpu, buffer);
  }
}

/** Rows of the part, within [row, row + rows), whose blocks lie in the shard: runs of whole blocks. */
function runsIn(shard: Shard, part: Part, row: number, rows: number): { row: number; rows: number }[] {
  const { firstBlock, blockStride } = part;
  // Block b of the part is stored block firstBlock + b · blockStride.
  const from = Math.max(Math.ceil((shard.firstBlock - firstBlock) / blockStride), 0);
  const to = Math.ceil((shard.firstBlock + shard.blocks - firstBlock) / blockStride);
  const begin = Math.max(row, from * BLOCK_ROWS);
  const end = Math.min(row + rows, to * BLOCK_ROWS);
  return begin < end ? [{ row: begin, rows: end - begin }] : [];
}

function readElement(view: DataView, dtype: string, index: number): number {
  if (dtype === "F32") return view.getFloat32(index * 4, true);
  const bits = view.getUint16(index * 2, true);
  return dtype === "F16" ? f16FromBits(bits) : bf16FromBits(bits);
}
