/** The memory plan: what an engine needs on the GPU, in numbers, before it takes any. */
import { bytes } from "../device/buffers.ts";
import { OutOfMemoryError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { MAX_ROWS } from "./batch.ts";
import type { CacheGroup } from "./cacheGroups.ts";
import { kvTypesOf } from "./kvType.ts";
import { bytesFor, fitting, groupSize, mostTokenPages, pageBytes } from "./pageSizes.ts";

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
  /** Pages by cache group. */
  readonly groups: readonly PlannedGroup[];
  /** Tokens a sequence may have. */
  readonly context: number;
  /** The longest context that fits: what `context` may be raised to. */
  readonly longest: number;
  /** The longest that the model was made for. */
  readonly trained: number;
  readonly kvBytesPerToken: number;
  /** Tokens that there are pages for, of all sequences together: more where windows leave some behind. */
  readonly tokens: number;
}

/** A cache group and how many pages it has. */
export interface PlannedGroup extends CacheGroup {
  readonly pages: number;
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

/** Throws OutOfMemoryError where the wishes cannot be met on this adapter, with what would fit. */
export function planMemory(
  gpu: Gpu,
  { caches, groups }: { readonly caches: readonly CacheDeclaration[]; readonly groups: readonly CacheGroup[] },
  weights: number,
  modelContext: number,
  wishes: MemoryWishes,
): MemoryPlan {
  const page = pageBytes(caches, wishes.kvType);
  const { states, sequences } = planStates(gpu, caches, wishes);
  const kvMemory = wishes.kvMemory === undefined ? undefined : wishes.kvMemory - states;
  const limit = bindingLimit(gpu);
  const sizesFor = (many: number, kvType = wishes.kvType) =>
    groups.map((group) => groupSize(group, caches, kvType, { limit, sequences: many }));
  const ropeRows = Math.floor(limit / (4 * Math.max(1, ...wishes.rotaryDims))) - MAX_ROWS;
  const longestAs = (kvType: KvType): number => {
    const tokens = PAGE_TOKENS * fitting(sizesFor(1, kvType), kvMemory ?? Number.POSITIVE_INFINITY);
    return Math.min(tokens, ropeRows, wishes.positions);
  };
  const wanted = wishes.context ?? modelContext;
  const pagesEach = Math.ceil(wanted / PAGE_TOKENS);
  // A context that was asked for is not cut by what is only our own idea of enough.
  const least = bytesFor(sizesFor(1), wishes.context === undefined ? 1 : pagesEach);
  const budget = kvMemory ?? Math.max(DEFAULT_KV, least);
  // Windows of fewer sequences at once, where a longer context then fits beside them.
  const few = wishes.context === undefined ? Math.min(DEFAULT_SEQUENCES, sequences) : 1;
  const goal = Math.min(pagesEach, fitting(sizesFor(few), budget));
  const windowed = groups.every(({ window }) => window !== null);
  let many = sequences;
  while (!windowed && many > few && fitting(sizesFor(many), budget) < goal) many = Math.max(few, Math.floor(many / 2));
  const sizes = sizesFor(many);
  const most = Math.min(...sizes.map(mostTokenPages));
  const room = fitting(sizes, budget);
  // Where every layer has a window, pages of one are enough for any context.
  const fits = windowed ? fitting(sizesFor(1), budget) : room;
  if (fits < 1 || (wishes.context !== undefined && fits < pagesEach)) {
    const byWish = kvMemory !== undefined && fits < most;
    throw tooFewPages(fits, {
      need: `${bytes(bytesFor(sizes, pagesEach))} for ${wanted} tokens`,
      most: byWish ? `${bytes(budget)} by --kv-memory` : `${bytes(bytesFor(sizes, most))} on "${gpu.adapter.name}"`,
      leastWish: kvMemory === undefined || most < 1 ? undefined : page + states,
      smaller: smallerTypes(caches, wishes.kvType, longestAs),
    });
  }
  if (ropeRows < Math.min(wishes.context ?? 1, fits * PAGE_TOKENS)) {
    const message = `rope table: ${wanted} tokens, at most ${ropeRows} in one binding of "${gpu.adapter.name}"`;
    throw new OutOfMemoryError(`${message}; try --context ${Math.max(ropeRows, 1)}`);
  }
  const context = Math.min(wanted, fits * PAGE_TOKENS, ropeRows);
  const each = Math.ceil(context / PAGE_TOKENS);
  const enough = kvMemory === undefined ? DEFAULT_SEQUENCES : sequences;
  const pages = kvMemory === undefined || page === 0 ? Math.min(room, each * enough) : room;
  const planned = groups.map((group, i) => ({ ...group, pages: Math.min(pages, sizes[i]?.enough ?? pages) }));
  return {
    weights,
    kv: bytesFor(sizes, pages),
    states,
    sequences,
    rope: (context + MAX_ROWS) * wishes.rotaryDims.reduce((sum, dim) => sum + dim, 0) * 4,
    groups: planned,
    context,
    longest: Math.max(context, longestAs(wishes.kvType)),
    trained: modelContext,
    kvBytesPerToken: page / PAGE_TOKENS,
    tokens: planned.reduce((most, group) => Math.max(most, group.pages), 0) * PAGE_TOKENS,
  };
}

function tooFewPages(
  fits: number,
  {
    need,
    most,
    leastWish,
    smaller,
  }: { readonly need: string; readonly most: string; readonly leastWish: number | undefined; readonly smaller: string },
): OutOfMemoryError {
  const more = leastWish === undefined ? "choose another adapter" : `raise --kv-memory to ${leastWish} or more`;
  const advice = fits < 1 ? more : `try --context ${fits * PAGE_TOKENS}${smaller}`;
  return new OutOfMemoryError(`kv cache: ${need}, at most ${most}; ${advice}`);
}

/** Bytes of one buffer that a kernel can be given. */
const bindingLimit = ({ limits }: Gpu): number => Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);

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
