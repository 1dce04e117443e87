/** Cache groups and their part of the memory plan, on adapters that are numbers. */
import { describe, expect, test } from "vitest";
import type { Gpu } from "../device/gpu.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { cacheGroups, firstPageOf } from "./cacheGroups.ts";
import { type MemoryWishes, planMemory } from "./memoryPlan.ts";
import { heldBytes } from "./pageSizes.ts";

const MIB = 2 ** 20;
const layer = (window: number | null): CacheDeclaration => ({ kind: "pages", kvHeads: 2, headDim: 64, window });
/** Of one layer, f16. */
const PAGE = 16 * 2 * 64 * 2 * 2;

function plan(
  windows: readonly (number | null)[],
  context: number,
  wishes: Partial<MemoryWishes> = {},
  limit = 128 * MIB,
) {
  const caches = windows.map(layer);
  const gpu = {
    limits: { maxStorageBufferBindingSize: limit, maxBufferSize: limit },
    adapter: { name: "an adapter" },
  } as unknown as Gpu; // all that a plan asks of it
  return planMemory(gpu, { caches, groups: cacheGroups(caches) }, 0, context, {
    context: undefined,
    kvMemory: undefined,
    kvType: "f16",
    sequences: 64,
    rotaryDims: [64],
    positions: Number.POSITIVE_INFINITY,
    ...wishes,
  });
}

const pagesOf = ({ groups }: ReturnType<typeof plan>) => groups.map(({ pages }) => pages);

describe("cache groups", () => {
  test("are layers that see all, and layers with a window", () => {
    expect(cacheGroups([layer(null), layer(null)])).toEqual([{ window: null, layers: [0, 1] }]);
    expect(cacheGroups([layer(8), layer(24)])).toEqual([{ window: 24, layers: [0, 1] }]);
    expect(cacheGroups([layer(8), layer(null), { kind: "state", bytes: 16 }, layer(8)])).toEqual([
      { window: null, layers: [1] },
      { window: 8, layers: [0, 3] },
    ]);
    expect(cacheGroups([{ kind: "state", bytes: 16 }])).toEqual([{ window: null, layers: [] }]);
  });

  test("a window begins in a block of 32 keys, which is read as a whole", () => {
    expect([0, 24, 54, 55, 86, 87].map((position) => firstPageOf(position, 24))).toEqual([0, 0, 0, 2, 2, 4]);
    expect(firstPageOf(10_000, null)).toBe(0);
  });
});

test("a sequence holds as many tokens as its layers reach", () => {
  const caches = [null, 24, 24].map(layer);
  expect(heldBytes(caches, "f16", 160)).toBe(3 * 10 * PAGE);
  expect(heldBytes(caches, "f16", 16_000)).toBe((1000 + 2 * 13) * PAGE);
});

describe("a plan", () => {
  test("without windows is pages of all layers", () => {
    const { kv, context, tokens, ...rest } = plan([null, null], 1000);
    expect([context, tokens, kv]).toEqual([1000, 4 * 63 * 16, 4 * 63 * 2 * PAGE]);
    expect(pagesOf({ kv, context, tokens, ...rest })).toEqual([4 * 63]);
    const few = plan([null, null], 1000, { kvMemory: 10.5 * 2 * PAGE });
    expect([few.context, few.kv, ...pagesOf(few)]).toEqual([160, 20 * PAGE, 10]);
  });

  test("with a window in every layer has the whole context on few pages", () => {
    // 24 keys, a block of 32, two steps of 64 rows: 12 pages, and one for where they begin.
    const small = plan([24, 24], 100_000, { kvMemory: 13 * 2 * PAGE });
    expect([small.context, small.kv, ...pagesOf(small)]).toEqual([100_000, 26 * PAGE, 13]);
    const less = plan([24, 24], 100_000, { kvMemory: 12 * 2 * PAGE });
    expect([less.context, ...pagesOf(less)]).toEqual([12 * 16, 12]);
    expect(pagesOf(plan([24], 100_000))).toEqual([64 * 13]); // all that sequences have use for
  });

  test("with windows in some layers gives these no more than they have use for", () => {
    const mixed = plan([null, 24, 24, 24], 8000);
    expect(pagesOf(mixed)).toEqual([4 * 500, 64 * 13]);
    expect(mixed.kv).toBe((4 * 500 + 3 * 64 * 13) * PAGE);
    const even = plan([null, 24, 24, 24], 8000, { kvMemory: 4 * 100 * PAGE, sequences: 64 });
    expect(even.kv).toBeLessThanOrEqual(400 * PAGE);
    // A context that is asked for goes before windows of many sequences at once.
    const long = plan([null, 24, 24, 24], 8000, { kvMemory: 600 * PAGE, context: 8000 });
    expect(long.context).toBe(8000);
    expect(pagesOf(long)[0]).toBeGreaterThanOrEqual(500);
    expect(pagesOf(long)[1]).toBeGreaterThanOrEqual(13);
    expect(long.kv).toBeLessThanOrEqual(600 * PAGE);
    expect(() => plan([null, 24], 8000, { kvMemory: 400 * PAGE, context: 8000 })).toThrow(
      /kv cache: .* for 8000 tokens/,
    );
  });

  test("keeps a group within the buffer of a layer", () => {
    const tight = plan([null, 24], 8000, {}, 100 * PAGE);
    expect(pagesOf(tight)).toEqual([100, 100]);
    expect(tight.context).toBe(1600);
    expect(plan([24], 8000, { rotaryDims: [2] }, 100 * PAGE).context).toBe(8000);
  });
});
