/** The memory plan: what an engine needs on the GPU, in numbers, before it takes any. */
import { bytes } from "../device/buffers.ts";
import { OutOfMemoryError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { pageWords } from "../kernels/attention/kv_page.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { MAX_ROWS } from "./batch.ts";
import { kvTypesOf } from "./kvType.ts";

/** What an engine takes; bytes where nothing else is said. */
export interface MemoryPlan {
  readonly weights: number;
  readonly kv: number;
  /** States of all sequences, where layers keep some. */
  readonly states: number;
  /** Sequences that run at once, each with a state of its own. */
  readonly sequences: number;
  /** The tables of rotations: one row a position. */
  readonly rope: number;
  readonly pages: number;
  /** Tokens a sequence may have. */
  readonly context: number;
  /** The longest context that fits: what `context` may be raised to. */
  readonly longest: number;
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
  /** Sequences that may run at once where nothing else is in the way. */
  readonly sequences: number;
  /** f32s of a row of each rope table, which has one a position. */
  readonly rotaryDims: readonly number[];
  /** Positions that the model knows. */
  readonly positions: number;
}

/** Where nothing is said: room for several sequences of the model's context, within this. */
const DEFAULT_KV = 512 * 2 ** 20;
const DEFAULT_SEQUENCES = 4;
/** States of as many sequences as fit in this, where nothing is said; else in half of `kvMemory`. */
const DEFAULT_STATES = 256 * 2 ** 20;

/** Bytes of a layer's page: none where it keeps a state. */
export const layerPageBytes = (cache: CacheDeclaration, kvType: KvType): number =>
  cache.kind === "pages" ? 4 * pageWords(kvType, cache.kvHeads, cache.headDim, cache.valueDim) : 0;

/** Bytes of a page in all layers. */
export const pageBytes = (caches: readonly CacheDeclaration[], kvType: KvType): number =>
  caches.reduce((sum, cache) => sum + layerPageBytes(cache, kvType), 0);

/** Throws OutOfMemoryError where the wishes cannot be met on this adapter, with what would fit. */
export function planMemory(
  gpu: Gpu,
  caches: readonly CacheDeclaration[],
  weights: number,
  modelContext: number,
  wishes: MemoryWishes,
): MemoryPlan {
  const page = pageBytes(caches, wishes.kvType);
  const { states, sequences } = planStates(gpu, caches, wishes);
  const kvMemory = wishes.kvMemory === undefined ? undefined : wishes.kvMemory - states;
  const most = mostPages(gpu, caches, wishes.kvType);
  const ropeRows = Math.floor(bindingLimit(gpu) / (4 * Math.max(1, ...wishes.rotaryDims))) - MAX_ROWS;
  const longestAs = (kvType: KvType): number => {
    const budgeted =
      kvMemory === undefined ? Number.POSITIVE_INFINITY : Math.floor(kvMemory / Math.max(pageBytes(caches, kvType), 1));
    return Math.min(PAGE_TOKENS * Math.min(mostPages(gpu, caches, kvType), budgeted), ropeRows, wishes.positions);
  };
  const wanted = wishes.context ?? modelContext;
  const pagesEach = Math.ceil(wanted / PAGE_TOKENS);
  // A context that was asked for is not cut by what is only our own idea of enough.
  const budget = kvMemory ?? Math.max(DEFAULT_KV, page * (wishes.context === undefined ? 1 : pagesEach));
  const fits = page === 0 ? most : Math.min(most, Math.floor(budget / page));
  if (fits < 1 || (wishes.context !== undefined && fits < pagesEach)) {
    const need = bytes(pagesEach * page);
    const reason =
      kvMemory !== undefined && fits < most
        ? `${bytes(budget)} by --kv-memory`
        : `${bytes(most * page)} on "${gpu.adapter.name}"`;
    const advice =
      fits < 1
        ? kvMemory === undefined || most < 1
          ? "choose another adapter"
          : `raise --kv-memory to ${page + states} or more`
        : `try --context ${fits * PAGE_TOKENS}${smallerTypes(caches, wishes.kvType, longestAs)}`;
    throw new OutOfMemoryError(`kv cache: ${need} for ${wanted} tokens, at most ${reason}; ${advice}`);
  }
  if (ropeRows < Math.min(wishes.context ?? 1, fits * PAGE_TOKENS)) {
    const message = `rope table: ${wanted} tokens, at most ${ropeRows} in one binding of "${gpu.adapter.name}"`;
    throw new OutOfMemoryError(`${message}; try --context ${Math.max(ropeRows, 1)}`);
  }
  const context = Math.min(wanted, fits * PAGE_TOKENS, ropeRows);
  const each = Math.ceil(context / PAGE_TOKENS);
  const enough = kvMemory === undefined ? DEFAULT_SEQUENCES : sequences;
  const pages = kvMemory === undefined || page === 0 ? Math.min(fits, each * enough) : fits;
  return {
    weights,
    kv: pages * page,
    states,
    sequences,
    rope: (context + MAX_ROWS) * wishes.rotaryDims.reduce((sum, dim) => sum + dim, 0) * 4,
    pages,
    context,
    longest: Math.max(context, longestAs(wishes.kvType)),
    kvBytesPerToken: page / PAGE_TOKENS,
    tokens: pages * PAGE_TOKENS,
  };
}

/** Bytes of one buffer that a kernel can be given. */
const bindingLimit = ({ limits }: Gpu): number => Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);

/** Pages whose every layer can be bound. Those of no bytes, where every layer keeps a state, still count tokens. */
function mostPages(gpu: Gpu, caches: readonly CacheDeclaration[], kvType: KvType): number {
  const largest = Math.max(...caches.map((cache) => layerPageBytes(cache, kvType)));
  return largest === 0 ? Number.MAX_SAFE_INTEGER : Math.floor(bindingLimit(gpu) / largest);
}

/** Types of which more tokens fit, to be tried instead. */
function smallerTypes(
  caches: readonly CacheDeclaration[],
  kvType: KvType,
  longestAs: (kvType: KvType) => number,
): string {
  const others = kvTypesOf(caches).filter((other) => longestAs(other) > longestAs(kvType));
  return others.map((other) => `, or --kv-type ${other} with up to ${longestAs(other)}`).join("");
}

/** How many sequences run at once, and the bytes of their states where layers keep some. Throws OutOfMemoryError where not one fits. */
function planStates(
  gpu: Gpu,
  caches: readonly CacheDeclaration[],
  { sequences, kvMemory }: MemoryWishes,
): Pick<MemoryPlan, "states" | "sequences"> {
  const layers = caches.flatMap((cache) => (cache.kind === "state" ? cache.bytes : []));
  const each = layers.reduce((a, b) => a + b, 0);
  if (each === 0) return { states: 0, sequences };
  const most = Math.floor(bindingLimit(gpu) / Math.max(...layers));
  const budget = kvMemory === undefined ? DEFAULT_STATES : kvMemory / 2;
  const fit = Math.min(sequences, most, Math.max(1, Math.floor(budget / each)));
  if (fit < 1)
    throw new OutOfMemoryError(
      `states: ${bytes(Math.max(...layers))} of one layer, more than one binding of "${gpu.adapter.name}" holds; choose another adapter`,
    );
  if (kvMemory !== undefined && each > kvMemory)
    throw new OutOfMemoryError(
      `states: ${bytes(each)} a sequence, at most ${bytes(kvMemory)} by --kv-memory; raise --kv-memory to ${2 * each} or more`,
    );
  return { states: fit * each, sequences: fit };
}
