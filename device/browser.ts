/** WebGPU in a browser (or any other host that has `navigator.gpu`). */
import { type AdapterSearch, describe, inOrder, type Platform } from "./adapters.ts";
import { AdapterUnavailableError } from "./errors.ts";

const REMEDY =
  "use a browser with WebGPU (Chrome or Edge 113, Safari 26, Firefox 141 or later) over https or localhost, " +
  "and check that graphics acceleration is on in its settings";

/** The requests that together reach every adapter a browser gives away, the wanted one first. */
const REQUESTS: readonly GPURequestAdapterOptions[] = [
  { powerPreference: "high-performance" },
  { powerPreference: "low-power" },
  {},
  { forceFallbackAdapter: true },
];

export const browserPlatform: Platform = {
  defaultSelector: () => undefined,
  findAdapters,
  waitFor: (arrival) => arrival, // the GPU's process tells
};

async function findAdapters(): Promise<AdapterSearch> {
  const gpu = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (gpu === undefined) {
    return { adapters: [], notes: ["this browser has no navigator.gpu"], remedy: REMEDY };
  }
  const found = new Map<string, Parameters<typeof inOrder>[0][number]>();
  for (const options of REQUESTS) {
    const adapter = await gpu.requestAdapter(options);
    if (adapter === null) continue;
    const description = describe(adapter, "browser", undefined, gpu.wgslLanguageFeatures);
    const { name, vendor, architecture, kind } = description;
    const key = [name, vendor, architecture, kind].join("\n");
    if (!found.has(key)) found.set(key, { description, request: () => again(gpu, options, name) });
  }
  return { adapters: inOrder([...found.values()]), notes: [], remedy: REMEDY };
}

async function again(gpu: GPU, options: GPURequestAdapterOptions, name: string): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter(options);
  // A browser that lost its GPU process thrice stops giving adapters away.
  if (adapter === null) throw new AdapterUnavailableError(`adapter "${name}": no longer given; reload the page`);
  return adapter;
}
