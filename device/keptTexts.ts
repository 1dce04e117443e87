/** Small texts that outlive the program: in the user's cache folder in Node, in the cache of the site in a browser. */
import type { KeptTexts } from "./files.ts";
import { importNode } from "./importNode.ts";

/** What this platform has. */
export async function keptTexts(): Promise<KeptTexts> {
  const node = await importNode<typeof import("./nodeKeptTexts.ts")>("nodeKeptTexts");
  return node?.nodeKeptTexts() ?? siteCache;
}

/** What is used of a browser's CacheStorage. */
interface Caches {
  open(name: string): Promise<{
    match(url: string): Promise<Response | undefined>;
    put(url: string, response: Response): Promise<void>;
  }>;
}

/** Nothing is ever fetched from it: a cache's keys are addresses. */
const ADDRESS = "https://ingle.invalid/";

/** The cache of the site, where the host has one; where it fails, nothing is kept. */
export const siteCache: KeptTexts = {
  async read(name) {
    try {
      return await (await (await openCache())?.match(ADDRESS + name))?.text();
    } catch {
      return undefined; // storage is forbidden here
    }
  },
  async write(name, text) {
    try {
      await (await openCache())?.put(ADDRESS + name, new Response(text));
    } catch {
      // forbidden, or full
    }
  },
};

/** Undefined where the host has none, as over http. */
async function openCache() {
  return await (globalThis as { caches?: Caches }).caches?.open("ingle");
}
