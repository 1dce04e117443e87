/**
 * Cache groups: layers that look equally far back share block tables, and pages that none of their rows sees any more are free.
 *
 * There are two at most, as a row has two tables: layers that see everything, and layers with a window, the longest of which counts for all.
 */
import { KEY_BLOCK, PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";

/** Layers of one group. */
export interface CacheGroup {
  /** Keys that a row sees, its own included; null: all. */
  readonly window: number | null;
  readonly layers: readonly number[];
}

/** One at least, be it without layers: pages of no bytes still count tokens. */
export function cacheGroups(caches: readonly CacheDeclaration[]): CacheGroup[] {
  const whole: number[] = [];
  const windowed: number[] = [];
  let longest = 0;
  for (const [layer, cache] of caches.entries()) {
    if (cache.kind !== "pages") continue;
    (cache.window === null ? whole : windowed).push(layer);
    longest = Math.max(longest, cache.window ?? 0);
  }
  return [
    ...(whole.length > 0 || windowed.length === 0 ? [{ window: null, layers: whole }] : []),
    ...(windowed.length > 0 ? [{ window: longest, layers: windowed }] : []),
  ];
}

/** The first page that the row at `position` needs: kernels read keys by whole blocks. */
export function firstPageOf(position: number, window: number | null): number {
  if (window === null) return 0;
  const low = Math.max(position + 1 - window, 0);
  return (Math.floor(low / KEY_BLOCK) * KEY_BLOCK) / PAGE_TOKENS;
}
