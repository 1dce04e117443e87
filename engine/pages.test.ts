/** The page pool against a plain model of it: any commands in any order. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PagePool, pageKey } from "./pages.ts";

/** What the pool should be: a record a page, and the order in which unheld pages were let go. */
class Model {
  readonly holders: number[];
  readonly keys = new Map<number, string>();
  /** Unheld pages with a key, the one that was let go first in front. */
  readonly cached: number[] = [];

  constructor(total: number) {
    this.holders = new Array<number>(total).fill(0);
  }
  pageOf(key: string): number | undefined {
    return [...this.keys].find(([, other]) => other === key)?.[0];
  }
  count(page: number): number {
    return this.holders[page] ?? Number.NaN;
  }
  used(): number {
    return this.holders.filter((count) => count > 0).length;
  }
}

type Command = readonly [kind: "take" | "share" | "publish" | "release", which: number];

/** Runs commands on both and compares after each. `held` has a page once for each time it is held. */
function check(total: number, commands: readonly Command[]): void {
  const pool = new PagePool(total);
  const model = new Model(total);
  const held: number[] = [];
  for (const [kind, which] of commands) {
    const key = `key ${which % (2 * total)}`;
    const at = which % Math.max(held.length, 1);
    const page = held[at];
    if (kind === "take") take(pool, model, held);
    else if (kind === "share") share(pool, model, held, key);
    else if (page !== undefined && kind === "publish") publish(pool, model, page, key);
    else if (page !== undefined && kind === "release") release(pool, model, held, at);
    const { used, cached, available } = pool;
    expect({ used, cached, available }).toEqual({
      used: model.used(),
      cached: model.cached.length,
      available: total - model.used(),
    });
  }
  while (held.length > 0) release(pool, model, held, 0);
  expect(pool.used).toBe(0);
  expect(pool.available).toBe(total);
}

function take(pool: PagePool, model: Model, held: number[]): void {
  const wasFull = model.used() === pool.total;
  const mustEvict = model.used() + model.cached.length === pool.total;
  const page = pool.take();
  expect(page === undefined).toBe(wasFull);
  if (page === undefined) return;
  expect(model.count(page)).toBe(0); // nobody else writes it
  if (mustEvict)
    expect(page).toBe(model.cached.shift()); // the one unused longest
  else expect(model.keys.has(page)).toBe(false); // free before cached
  model.keys.delete(page);
  model.holders[page] = 1;
  held.push(page);
}

function share(pool: PagePool, model: Model, held: number[], key: string): void {
  const page = pool.share(key);
  expect(page).toBe(model.pageOf(key));
  if (page === undefined) return;
  if (model.count(page) === 0) model.cached.splice(model.cached.indexOf(page), 1);
  model.holders[page] = model.count(page) + 1;
  held.push(page);
}

function publish(pool: PagePool, model: Model, page: number, key: string): void {
  pool.publish(page, key);
  if (model.pageOf(key) === undefined && !model.keys.has(page)) model.keys.set(page, key);
}

function release(pool: PagePool, model: Model, held: number[], at: number): void {
  const [page] = held.splice(at, 1);
  if (page === undefined) return;
  pool.release(page);
  model.holders[page] = model.count(page) - 1;
  if (model.count(page) === 0 && model.keys.has(page)) model.cached.push(page);
}

describe("PagePool", () => {
  const COMMANDS = process.env.INGLE_SUITE === "full" ? 100_000 : 1_000;
  const EACH = 100;
  const kinds = fc.constantFrom<Command[0]>("take", "take", "share", "publish", "release");

  test(`is its model after any of ${COMMANDS} commands`, { timeout: 300_000 }, () => {
    const commands = fc.array(fc.tuple(kinds, fc.nat(1000)), { minLength: EACH, maxLength: EACH });
    fc.assert(fc.property(fc.integer({ min: 1, max: 12 }), commands, check), { numRuns: COMMANDS / EACH });
  });

  test("a page comes back for its key until its place is wanted", () => {
    const pool = new PagePool(2);
    const page = pool.take() ?? Number.NaN;
    pool.publish(page, "a");
    pool.release(page);
    expect(pool.cached).toBe(1);
    expect(pool.share("a")).toBe(page);
    pool.release(page);
    pool.take();
    expect(pool.take()).toBe(page);
    expect(pool.share("a")).toBeUndefined();
    expect(pool.take()).toBeUndefined();
  });

  test("refuses what would break the count", () => {
    const pool = new PagePool(2);
    expect(() => pool.release(0)).toThrow("page 0: released, but held by none");
    expect(() => pool.release(2)).toThrow("page 2: of 2");
  });
});

describe("pageKey", () => {
  test("depends on every row and on all pages before", () => {
    const rows = Uint32Array.from({ length: 32 }, (_, i) => i);
    const keys = [pageKey("", rows), pageKey(pageKey("", rows), rows)];
    for (let i = 0; i < rows.length; i++) keys.push(pageKey("", rows.with(i, 99)));
    expect(new Set(keys).size).toBe(keys.length);
    expect(pageKey("", rows.slice())).toBe(keys[0]);
  });
});
