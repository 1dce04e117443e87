/** What a site keeps, in a CacheStorage of which any call may fail: texts are kept or they are not, and nobody hears of it. */
import { afterEach, expect, test, vi } from "vitest";
import { siteCache } from "./keptTexts.ts";

afterEach(() => vi.unstubAllGlobals());

/** A CacheStorage in memory whose `failing`-th call is refused. */
function cacheStorage(failing: number) {
  const texts = new Map<string, string>();
  let calls = 0;
  const call = async <T>(answer: () => T): Promise<T> => {
    if (++calls === failing) throw new DOMException("full", "QuotaExceededError");
    return answer();
  };
  const cache = {
    match: (url: string) => call(() => (texts.has(url) ? { text: () => call(() => texts.get(url)) } : undefined)),
    put: async (url: string, response: Response) => {
      const text = await response.text();
      await call(() => texts.set(url, text));
    },
  };
  return { open: () => call(() => cache), struck: () => calls >= failing };
}

test("any call may fail: what is read is what was written, or nothing", async () => {
  for (let failing = 1; ; failing++) {
    const caches = cacheStorage(failing);
    vi.stubGlobal("caches", caches);
    await siteCache.write("a", "first");
    const before = await siteCache.read("a");
    expect([undefined, "first"]).toContain(before);
    await siteCache.write("a", "second");
    const after = await siteCache.read("a");
    expect([undefined, before, "second"]).toContain(after);
    if (caches.struck()) continue;
    expect([failing, before, after]).toEqual([11, "first", "second"]); // two writes of two calls, two reads of three
    return;
  }
});

test("a host that has none, or forbids it, keeps nothing", async () => {
  const expectNothing = async () => {
    await siteCache.write("a", "text");
    expect(await siteCache.read("a")).toBeUndefined();
  };
  vi.stubGlobal("caches", undefined);
  await expectNothing();
  vi.unstubAllGlobals();
  const before = Object.getOwnPropertyDescriptor(globalThis, "caches");
  Object.defineProperty(globalThis, "caches", {
    configurable: true,
    get: () => {
      throw new DOMException("the page is sandboxed", "SecurityError");
    },
  });
  try {
    await expectNothing();
  } finally {
    if (before === undefined) Reflect.deleteProperty(globalThis, "caches");
    else Object.defineProperty(globalThis, "caches", before);
  }
});
