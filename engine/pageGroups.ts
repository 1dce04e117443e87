/** The pages of an engine: a pool for each cache group, from which sequences take pages for the same tokens. */
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { firstPageOf } from "./cacheGroups.ts";
import { type PageKey, PagePool } from "./pages.ts";

/** Pages of one cache group. */
export interface PageGroup {
  readonly pool: PagePool;
  /** Keys that a row sees; null: all. */
  readonly window: number | null;
}

/** All of them. */
export class PageGroups {
  readonly groups: readonly PageGroup[];
  /** Whether pages are shared: a sequence whose layers keep states as well would need those of the place where it goes on. */
  readonly shares: boolean;

  constructor(groups: readonly PageGroup[], { shares = true }: { readonly shares?: boolean } = {}) {
    this.groups = groups;
    this.shares = shares;
  }

  get total(): number {
    return this.#sum(({ total }) => total);
  }
  get used(): number {
    return this.#sum(({ used }) => used);
  }
  get cached(): number {
    return this.#sum(({ cached }) => cached);
  }
  /** Pages that each group has free. */
  get free(): number {
    return Math.min(...this.groups.map(({ pool }) => pool.free));
  }
  /** Pages that each group could give. */
  get available(): number {
    return Math.min(...this.groups.map(({ pool }) => pool.available));
  }

  #sum(of: (pool: PagePool) => number): number {
    return this.groups.reduce((sum, { pool }) => sum + of(pool), 0);
  }

  /** A page of each group, by group; undefined, and nothing taken, where one of them has none. */
  take(): readonly number[] | undefined {
    if (this.available === 0) return undefined;
    return this.groups.map(({ pool }) => pool.take() ?? Number.NaN);
  }

  /**
   * How many of at most `most` pages, from the first one on, there are in all groups: of one with a window, those that the row behind them
   * needs. `keyOf` is asked in order, and no further than can matter.
   */
  found(keyOf: (index: number) => PageKey, most: number): number {
    const whole = this.groups.filter(({ window }) => window === null);
    const keys: PageKey[] = [];
    while (keys.length < most) {
      const key = keyOf(keys.length);
      if (whole.some(({ pool }) => !pool.has(key))) break;
      keys.push(key);
    }
    let count = keys.length;
    // Where a page is missing, no count above it will do: fewer pages need none of later ones.
    for (let missing = 0; missing >= 0 && count > 0; ) {
      missing = Math.max(...this.groups.map((group) => lastMissing(group, keys, count)));
      if (missing >= 0) count = missing;
    }
    return count;
  }
}

/** What a memory plan says of them. */
interface PlannedPages {
  readonly groups: readonly { readonly pages: number; readonly window: number | null }[];
  /** Bytes of states. */
  readonly states: number;
}

/** Those of a plan. Layers that keep states keep sequences from sharing. */
export function pageGroupsOf({ groups, states }: PlannedPages): PageGroups {
  const pools = groups.map(({ pages, window }) => ({ pool: new PagePool(pages), window }));
  return new PageGroups(pools, { shares: states === 0 });
}

/** The last page that the row behind `count` pages needs and that is not there, or -1. */
function lastMissing({ pool, window }: PageGroup, keys: readonly PageKey[], count: number): number {
  const first = firstPageOf(count * PAGE_TOKENS, window);
  return keys.slice(0, count).findLastIndex((key, i) => i >= first && !pool.has(key));
}
