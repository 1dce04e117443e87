/**
 * Streams a planned checkpoint to the GPU: pieces are read, written and repacked there; none is kept.
 *
 * Peak memory of the CPU is one piece being read, whatever the size of a tensor; the queue keeps the order, so one staging
 * buffer serves all.
 */

import { Arena } from "../device/arena.ts";
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import { encode, Recorder } from "../device/program.ts";
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { ELEMENT_ORDERS, REPACK_WORDS, repack } from "../kernels/repack.ts";
import type { Matrix, Part, Shard, TensorView } from "./matrix.ts";
import { type Piece, piecesOf, placesIn, type Target, targetsOf } from "./pieces.ts";
import { readVectors } from "./readVectors.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** Bytes read and uploaded at once, where a binding may be as large. */
const PIECE = 8 * 2 ** 20;

/** What weights wait for. */
export const LOADING_KERNELS: readonly CompiledKernel[] = [repack.compiled];

/** Who is told of progress, and what ends it. */
export interface LoadOptions {
  readonly signal?: AbortSignal;
  /** Bytes of the checkpoint read so far. */
  readonly onBytes?: (loaded: number) => void;
  /** Bytes read and uploaded at once, 8 MiB where a binding may be as large. */
  readonly pieceBytes?: number;
}

/** Fills the buffers of `allocateWeights`, `aux` being what it returned. They stay their owner's. */
export async function loadWeights(
  gpu: Gpu,
  pipelines: PipelineCache,
  plan: WeightPlan,
  aux: GPUBuffer,
  options: LoadOptions = {},
): Promise<void> {
  const size = Math.min(options.pieceBytes ?? PIECE, 4 * Math.floor(gpu.limits.maxStorageBufferBindingSize / 4));
  const staging = await allocateStaging(gpu, size);
  const upload = new Uploader(gpu, pipelines, staging, plan.claimedBytes(), options);
  try {
    for (const matrix of plan.matrices) await upload.matrix(matrix);
    await upload.vectors(plan, aux);
    await upload.settle();
  } finally {
    upload.close();
  }
}

function allocateStaging(gpu: Gpu, size: number): Promise<GPUBuffer> {
  return allocateBuffer(gpu, { label: "staging", size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
}

/** Reads pieces into a staging buffer, which it frees, and records their repacking. */
class Uploader {
  readonly #gpu: Gpu;
  readonly #pipelines: PipelineCache;
  readonly #options: LoadOptions;
  readonly #arena: Arena;
  /** The pieces; one serves all, since the queue keeps the order. */
  #staging: GPUBuffer;
  #loaded = 0;
  readonly #errorsBefore: number;

  /** Bytes of each tensor in its file, and how many of them count as read. */
  readonly #bytes: ReadonlyMap<string, number>;
  readonly #read = new Map<string, number>();

  constructor(
    gpu: Gpu,
    pipelines: PipelineCache,
    staging: GPUBuffer,
    bytes: ReadonlyMap<string, number>,
    options: LoadOptions,
  ) {
    this.#bytes = bytes;
    this.#gpu = gpu;
    this.#pipelines = pipelines;
    this.#options = options;
    this.#arena = new Arena(gpu);
    this.#errorsBefore = gpu.uncaptured.length;
    this.#staging = staging;
  }

  async matrix(matrix: Matrix): Promise<void> {
    const { order, orderBuffer } = matrix;
    if (order !== undefined && orderBuffer !== undefined) this.#gpu.device.queue.writeBuffer(orderBuffer, 0, order);
    for (const [tensor, targets] of targetsOf(matrix)) {
      for (const piece of piecesOf(tensor, targets, this.#staging.size)) {
        await this.#upload(piece);
        await this.#repack(matrix, piece, targets);
      }
    }
  }

  /** Reads a piece into the staging buffer, which grows where one row or column of the tensor is larger. */
  async #upload({ tensor, begin, end }: Piece): Promise<void> {
    const { signal } = this.#options;
    const data = await tensor.source.read(tensor.begin + begin, tensor.begin + end, signal);
    const count = end - begin;
    if (count > this.#staging.size) {
      destroyBuffer(this.#gpu, this.#staging);
      this.#staging = await allocateStaging(this.#gpu, 4 * Math.ceil(count / 4));
    }
    const whole = count - (count % 4);
    const { queue } = this.#gpu.device;
    queue.writeBuffer(this.#staging, 0, data.buffer as ArrayBuffer, data.byteOffset, whole);
    if (whole < count) {
      const tail = new Uint8Array(4);
      tail.set(data.subarray(whole));
      queue.writeBuffer(this.#staging, whole, tail);
    }
    this.#count(tensor.name, count / (tensor.end - tensor.begin));
  }

  /** A share of a tensor is read: in its bytes in the file, whatever is made of them, and each once. */
  #count(name: string, share: number): void {
    const size = this.#bytes.get(name) ?? 0;
    const before = this.#read.get(name) ?? 0;
    const now = Math.min(before + share * size, size);
    this.#read.set(name, now);
    this.#loaded += now - before;
    this.#options.onBytes?.(Math.floor(this.#loaded));
  }

  /** Repacks what of a piece belongs to the targets, into the shards it falls in. */
  async #repack(matrix: Matrix, piece: Piece, targets: readonly Target[]): Promise<void> {
    const recorder = new Recorder(this.#gpu, this.#pipelines);
    for (const target of targets) {
      const place = placesIn(matrix, target, piece);
      if (place === undefined) continue;
      const permuted = target.param === undefined && matrix.order !== undefined;
      for (const shard of matrix.shards) {
        const rows = rowsIn(shard, target.part, place.rowBegin, place.rowEnd);
        const out = target.param === undefined ? shard.words : shard.scales;
        if (rows === undefined) continue;
        if (out === undefined) throw new RangeError(`${matrix.name}: no scales to write`);
        const tiles = Math.ceil(rows.end / BLOCK_ROWS) - Math.floor(rows.begin / BLOCK_ROWS);
        repack.launch(recorder, {
          buffers: {
            source: this.#staging,
            order: permuted ? (matrix.orderBuffer ?? this.#staging) : this.#staging,
            out,
          },
          params: {
            ...viewParams(target.view, piece),
            ...sliceParams(target.part),
            row_begin: rows.begin,
            row_end: rows.end,
            // Blocks count from the shard's first: a part that begins before the shard wraps around, and its blocks wrap back.
            first_block: (target.part.firstBlock - shard.firstBlock) >>> 0,
            block_stride: target.part.blockStride,
            permuted: permuted ? 1 : 0,
            row_words: place.rowWords,
            first_word: place.firstWord,
            words: place.words,
            ...targetParams(matrix, target),
          },
          grid: [Math.ceil(place.words / REPACK_WORDS), tiles, 1],
        });
      }
    }
    const program = await recorder.finish(this.#arena);
    const encoder = this.#gpu.device.createCommandEncoder();
    encode(encoder, program);
    this.#gpu.device.queue.submit([encoder.finish()]);
    program.destroy();
  }

  /** Reads norms and biases and uploads them as one buffer. */
  async vectors(plan: WeightPlan, aux: GPUBuffer): Promise<void> {
    const { signal } = this.#options;
    const values = await readVectors(plan, aux.size / 4, { signal, onRead: ({ name }) => this.#count(name, 1) });
    this.#gpu.device.queue.writeBuffer(aux, 0, values);
  }

  /** Waits for the last piece. Throws what the GPU met on the way: weights that were never written are zeros, not an error. */
  async settle(): Promise<void> {
    await this.#gpu.waitFor(this.#gpu.device.queue.onSubmittedWorkDone());
    const error = this.#gpu.uncaptured[this.#errorsBefore];
    if (error !== undefined) throw error;
    this.#options.onBytes?.([...this.#bytes.values()].reduce((a, b) => a + b, 0)); // small ones were read while planning
  }

  close(): void {
    this.#arena.destroy();
    destroyBuffer(this.#gpu, this.#staging);
  }
}

/** Params of where elements lie, for a piece that begins inside the tensor. */
function viewParams(view: TensorView, { first, count }: Piece) {
  return {
    bits: view.bits,
    element_order: ELEMENT_ORDERS.indexOf(view.elementOrder),
    flip: view.flip,
    count,
    base: modulo(view.base - first),
    row_tile: view.rowTile,
    row_tile_stride: modulo(view.rowTileStride),
    row_stride: view.rowStride,
    column_tile: view.columnTile,
    column_tile_stride: view.columnTileStride,
    column_stride: view.columnStride,
    columns: view.columns,
  };
}

/** Elements are counted modulo 2^32: only those of the piece matter, and it is smaller. */
const modulo = (value: number): number => ((value % 2 ** 32) + 2 ** 32) % 2 ** 32;

const sliceParams = ({ slice }: Part) => ({ row_first: slice.first, take: slice.take, period: slice.period });

function targetParams({ layout }: Matrix, { param }: Target) {
  if (param !== undefined) {
    const shared_rows = param.sharedRows ? 1 : 0;
    return { low_plane: 0, high_plane: 0, first_bit: param.firstBit, step_bits: param.stepBits, shared_rows };
  }
  const [low_plane = 0, high_plane = 0] = layouts[layout].planes;
  return { low_plane, high_plane, first_bit: 0, step_bits: 32, shared_rows: 0 };
}

/** Rows of the part, within begin … end-1, whose blocks lie in the shard. */
function rowsIn(shard: Shard, { firstBlock, blockStride }: Part, rowBegin: number, rowEnd: number) {
  // Block b of the part is stored block firstBlock + b · blockStride.
  const from = Math.max(Math.ceil((shard.firstBlock - firstBlock) / blockStride), 0);
  const to = Math.ceil((shard.firstBlock + shard.blocks - firstBlock) / blockStride);
  const begin = Math.max(rowBegin, from * BLOCK_ROWS);
  const end = Math.min(rowEnd, to * BLOCK_ROWS);
  return begin < end ? { begin, end } : undefined;
}
