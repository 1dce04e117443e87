/** The memory plan: what an engine needs on the GPU, in numbers, before it takes any. */
import { bytes } from "../device/buffers.ts";
import { OutOfMemoryError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { type KvType, pageWords } from "../kernels/attention/kv_page.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { MAX_ROWS } from "./batch.ts";

/** What an engine takes; bytes where nothing else is said. */
export interface MemoryPlan {
  readonly weights: number;
  readonly kv: number;
  /** The tables of rotations: one row a position. */
  readonly rope: number;
  readonly pages: number;
  /** Tokens a sequence may have. */
  readonly context: number;
  readonly kvBytesPerToken: number;
  /** Tokens that all sequences together may have. */
  readonly tokens: number;
}

/** What the user asked for. */
export interface MemoryWishes {
  /** undefined: the model's own, or what fits. */
  readonly context: number | undefined;
  readonly kvMemory: number | undefined;
  readonly kvType: KvType;
  /** f32s of a row of each rope table, which has one a position. */
  readonly rotaryDims: readonly number[];
}

/** Where nothing is said: room for several sequences of the model's context, within this. */
const DEFAULT_KV = 512 * 2 ** 20;
const DEFAULT_SEQUENCES = 4;

const layerPages = (caches: readonly CacheDeclaration[], kvType: KvType) =>
  caches.map(({ kvHeads, headDim, valueDim }) => 4 * pageWords(kvType, kvHeads, headDim, valueDim));

/** Bytes of a page in all layers. */
export const pageBytes = (caches: readonly CacheDeclaration[], kvType: KvType): number =>
  layerPages(caches, kvType).reduce((a, b) => a + b, 0);

/** Throws OutOfMemoryError where the wishes cannot be met on this adapter, with what would fit. */
export function planMemory(
  gpu: Gpu,
  caches: readonly CacheDeclaration[],
  weights: number,
  modelContext: number,
  wishes: MemoryWishes,
): MemoryPlan {
  const layerPage = layerPages(caches, wishes.kvType);
  const page = pageBytes(caches, wishes.kvType);
  const limit = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  const most = Math.floor(limit / Math.max(...layerPage));
  const ropeRows = Math.floor(limit / (4 * Math.max(1, ...wishes.rotaryDims))) - MAX_ROWS;
  const wanted = wishes.context ?? modelContext;
  const pagesEach = Math.ceil(wanted / PAGE_TOKENS);
  // A context that was asked for is not cut by what is only our own idea of enough.
  const budget = wishes.kvMemory ?? Math.max(DEFAULT_KV, page * (wishes.context === undefined ? 1 : pagesEach));
  const fits = Math.min(most, Math.floor(budget / page));
  if (fits < 1 || (wishes.context !== undefined && fits < pagesEach)) {
    const need = bytes(pagesEach * page);
    const reason =
      wishes.kvMemory !== undefined && fits < most
        ? `${bytes(budget)} by --kv-memory`
        : `${bytes(most * page)} on "${gpu.adapter.name}"`;
    const advice =
      fits < 1
        ? wishes.kvMemory === undefined || most < 1
          ? "choose another adapter"
          : `raise --kv-memory to ${page} or more`
        : `try --context ${fits * PAGE_TOKENS}${wishes.kvType === "f32" ? " or --kv-type f16" : ""}`;
    throw new OutOfMemoryError(`kv cache: ${need} for ${wanted} tokens, at most ${reason}; ${advice}`);
  }
  if (ropeRows < Math.min(wishes.context ?? 1, fits * PAGE_TOKENS)) {
    const message = `rope table: ${wanted} tokens, at most ${ropeRows} in one binding of "${gpu.adapter.name}"`;
    throw new OutOfMemoryError(`${message}; try --context ${Math.max(ropeRows, 1)}`);
  }
  const context = Math.min(wanted, fits * PAGE_TOKENS, ropeRows);
  const each = Math.ceil(context / PAGE_TOKENS);
  const pages = wishes.kvMemory === undefined ? Math.min(fits, each * DEFAULT_SEQUENCES) : fits;
  return {
    weights,
    kv: pages * page,
    rope: (context + MAX_ROWS) * wishes.rotaryDims.reduce((sum, dim) => sum + dim, 0) * 4,
    pages,
    context,
    kvBytesPerToken: page / PAGE_TOKENS,
    tokens: pages * PAGE_TOKENS,
  };
}
