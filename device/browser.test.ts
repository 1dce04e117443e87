import { afterEach, describe, expect, test, vi } from "vitest";
import { CORE_LIMITS } from "./adapters.ts";
import { browserPlatform } from "./browser.ts";

afterEach(() => vi.unstubAllGlobals());

const limits = Object.fromEntries(CORE_LIMITS.map((name) => [name, 8]));

/** A browser whose requestAdapter answers by the options it is asked with. */
function browser(answer: (options: GPURequestAdapterOptions) => Partial<GPUAdapterInfo> | null): { asked: string[] } {
  const asked: string[] = [];
  const requestAdapter = async (options: GPURequestAdapterOptions = {}) => {
    asked.push(JSON.stringify(options));
    const info = answer(options);
    const words = { vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false };
    return info && { info: { ...words, ...info }, features: new Set(["shader-f16"]), limits };
  };
  vi.stubGlobal("navigator", { gpu: { requestAdapter } });
  return { asked };
}

describe("a browser", () => {
  test("without WebGPU is told what to do", async () => {
    vi.stubGlobal("navigator", {});
    const { adapters, notes, remedy } = await browserPlatform.findAdapters();
    expect(adapters).toEqual([]);
    expect(notes).toEqual(["this browser has no navigator.gpu"]);
    expect(remedy).toContain("https or localhost");
  });

  test("that gives no adapter away has none", async () => {
    browser(() => null);
    expect((await browserPlatform.findAdapters()).adapters).toEqual([]);
  });

  test("lists each adapter once, by its first request, and the fallback last", async () => {
    const { asked } = browser(({ forceFallbackAdapter = false }) =>
      forceFallbackAdapter
        ? { vendor: "google", architecture: "swiftshader", isFallbackAdapter: true }
        : { vendor: "apple", architecture: "metal-3" },
    );
    const { adapters } = await browserPlatform.findAdapters();
    const seen = adapters.map(({ description: { index, name, kind, origin } }) => [index, name, kind, origin]);
    expect(seen).toEqual([
      [0, "apple metal-3", "hardware", "browser"],
      [1, "google swiftshader", "software", "browser"],
    ]);
    await adapters[0]?.request();
    expect(asked.at(-1)).toBe('{"powerPreference":"high-performance"}');
  });

  test("is asked again, in the same words, for the adapter that is opened, since each makes one device", async () => {
    const { asked } = browser(({ powerPreference = "" }) => ({ vendor: `gpu ${powerPreference}` }));
    const { adapters } = await browserPlatform.findAdapters();
    const before = asked.length;
    await adapters[1]?.request();
    expect(adapters[1]?.description.name).toBe("gpu low-power");
    expect(asked.slice(before)).toEqual(['{"powerPreference":"low-power"}']);
  });

  test("that stops giving an adapter away says so", async () => {
    let given = true;
    browser(() => (given ? { vendor: "apple" } : null));
    const { adapters } = await browserPlatform.findAdapters();
    given = false;
    await expect(adapters[0]?.request()).rejects.toThrow('adapter "apple": no longer given; reload the page');
  });
});
