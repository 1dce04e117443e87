/** What pages cost: bytes of one, and how many of all cache groups have room in buffers and within a budget. */
import { pageWords } from "../kernels/attention/kv_page.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { KEY_BLOCK, PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { MAX_ROWS } from "./batch.ts";
import { type CacheGroup, cacheGroups } from "./cacheGroups.ts";

/** Bytes of a layer's page: none where it keeps a state. */
export const layerPageBytes = (cache: CacheDeclaration, kvType: KvType): number =>
  cache.kind === "pages" ? 4 * pageWords(kvType, cache.kvHeads, cache.headDim, cache.valueDim) : 0;

/** Bytes of a page in all layers. */
export const pageBytes = (caches: readonly CacheDeclaration[], kvType: KvType): number =>
  caches.reduce((sum, cache) => sum + layerPageBytes(cache, kvType), 0);

/** Bytes of the keys and values that a sequence of so many tokens holds, whole pages not counted. */
export function heldBytes(caches: readonly CacheDeclaration[], kvType: KvType, tokens: number): number {
  return cacheGroups(caches).reduce((sum, { window, layers }) => {
    const held = window === null ? tokens : Math.min(tokens, windowPages(window) * PAGE_TOKENS);
    const group = caches.filter((_, layer) => layers.includes(layer));
    return sum + (pageBytes(group, kvType) / PAGE_TOKENS) * held;
  }, 0);
}

/** What pages of a group cost. */
export interface GroupSize {
  /** Of a page in all its layers. */
  readonly bytes: number;
  /** Pages that its buffers hold. */
  readonly most: number;
  /** Pages that one sequence of any length needs, and those that as many as run at once have use for. */
  readonly one: number;
  readonly enough: number;
}

/** Of a group, in buffers of at most `limit` bytes, where so many sequences run at once. */
export function groupSize(
  { layers, window }: CacheGroup,
  caches: readonly CacheDeclaration[],
  kvType: KvType,
  { limit, sequences }: { readonly limit: number; readonly sequences: number },
): GroupSize {
  const each = layers
    .map((layer) => caches[layer])
    .map((cache) => (cache === undefined ? 0 : layerPageBytes(cache, kvType)));
  const bytes = each.reduce((a, b) => a + b, 0);
  const most = bytes === 0 ? Number.MAX_SAFE_INTEGER : Math.floor(limit / Math.max(...each));
  const one = window === null ? Number.MAX_SAFE_INTEGER : windowPages(window);
  return { bytes, most, one, enough: Math.min(window === null ? most : one * sequences, most) };
}

/** Pages that a sequence of any length holds at most behind and within a window: two steps' rows ahead are counted in. */
const windowPages = (window: number): number => Math.ceil((window + KEY_BLOCK + 2 * MAX_ROWS) / PAGE_TOKENS) + 1;

/** Pages of tokens for which a group's buffers have room: any number where they hold one sequence's window. */
export const mostTokenPages = ({ most, one }: GroupSize): number => (one <= most ? Number.MAX_SAFE_INTEGER : most);

/** Bytes of all groups where there is room for so many pages of tokens. */
export const bytesFor = (sizes: readonly GroupSize[], pages: number): number =>
  sizes.reduce((sum, { bytes, enough }) => sum + (bytes === 0 ? 0 : bytes * Math.min(pages, enough)), 0);

/** The most pages of tokens for which there is room, in buffers and within a budget. */
export const fitting = (sizes: readonly GroupSize[], budget: number): number =>
  Math.min(...sizes.map(mostTokenPages), tokenPagesWithin(sizes, budget));

/** The most pages of tokens for which the groups' bytes are within a budget: groups that have enough cost no more. */
function tokenPagesWithin(sizes: readonly GroupSize[], budget: number): number {
  let open = sizes.filter(({ bytes }) => bytes > 0);
  let left = budget;
  for (const full of [...open].sort((a, b) => a.enough - b.enough)) {
    const pages = Math.floor(left / open.reduce((sum, { bytes }) => sum + bytes, 0));
    if (pages < full.enough) return pages;
    left -= full.bytes * full.enough;
    open = open.filter((size) => size !== full);
  }
  return Number.MAX_SAFE_INTEGER;
}
