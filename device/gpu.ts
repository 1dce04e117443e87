/** One opened adapter, in Node and in a browser alike. */
import {
  type AdapterDescription,
  type FoundAdapter,
  type Limits,
  type Platform,
  readLimits,
  select,
  type WaitFor,
} from "./adapters.ts";
import { AdapterUnavailableError, DeviceLostError, type GpuValidationError, type OutOfMemoryError } from "./errors.ts";
import { typedError } from "./gpuErrors.ts";
import { importNode } from "./importNode.ts";
import { BufferLedger } from "./memory.ts";

/** A device and what is known of it. Whoever opened it closes it. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly adapter: AdapterDescription;
  /** What the device was made with, not what the adapter could: a kernel may use just these. */
  readonly features: ReadonlySet<string>;
  /** The device's limits, read once. */
  readonly limits: Limits;
  /** Live buffers of `createBuffer` in buffers.ts. */
  readonly memory: BufferLedger;
  /** Ways of computing that gave other bits here than they must, by the names of kernels/variantNames.ts: ops do without them. */
  readonly off: Set<string>;
  /** The first errors that no scope caught, oldest first, at most 16. */
  readonly uncaptured: readonly (OutOfMemoryError | GpuValidationError)[];
  /** Settles once, never rejects. `reason` is "destroyed" after `close()` or `device.destroy()`, else "unknown". */
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>;
  /** Whether it was lost before `close()`. */
  readonly state: { readonly lost: boolean };
  /** Settles as `arrival` does, a promise for what the device works on: to be used for all that may take long, since in Node waiting costs a core. */
  readonly waitFor: WaitFor;
  /** Destroys the device and every buffer on it. May be called twice. */
  close(): void;
}

/** Which adapter to open, and how much of it to ask for. */
export interface GpuOptions {
  /** Part of an adapter's name or its index in `listAdapters()`; unset, INGLE_ADAPTER in Node, else the best there is. */
  readonly adapter?: string;
  /**
   * "adapter" (as unset): the adapter's largest buffers and bindings, all else WebGPU's defaults, so that what runs here runs in a
   * page. "default": WebGPU's defaults alone. A record: those limits, refused by name where the adapter has less.
   */
  readonly limits?: "adapter" | "default" | Readonly<Record<string, number>>;
  /** "all" (as unset): shader-f16, subgroups and timestamp-query where the adapter has them. */
  readonly features?: "all" | "none";
  /** Called for each error that no scope caught. */
  readonly onUncapturedError?: (error: OutOfMemoryError | GpuValidationError) => void;
}

const FEATURES = ["shader-f16", "subgroups", "timestamp-query"] as const satisfies GPUFeatureName[];
const UNCAPTURED_KEPT = 16; // one broken kernel repeats itself every step

/** Every adapter of this machine, best first: hardware, lavapipe, SwiftShader. Empty where there is none. */
export async function listAdapters(): Promise<AdapterDescription[]> {
  const { adapters } = await (await platform()).findAdapters();
  return adapters.map(({ description }) => description);
}

/**
 * The adapters to prove something on: the one that `selector` or INGLE_ADAPTER means, else all of them. Throws
 * AdapterUnavailableError where there is none: a proof on nothing would pass.
 */
export async function chosenAdapters(selector?: string): Promise<AdapterDescription[]> {
  const host = await platform();
  const search = await host.findAdapters();
  const wanted = selector ?? host.defaultSelector();
  const best = select(search, wanted).description;
  return wanted === undefined ? search.adapters.map(({ description }) => description) : [best];
}

/** Opens an adapter. Throws AdapterUnavailableError where none is found, none matches, or its limits are too small. */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  const host = await platform();
  const found = select(await host.findAdapters(), options.adapter ?? host.defaultSelector());
  const device = await requestDevice(found, options);
  return wrap(device, found.description, host, options.onUncapturedError);
}

async function platform(): Promise<Platform> {
  const node = await importNode<typeof import("./node.ts")>("node");
  return node?.nodePlatform ?? (await import("./browser.ts")).browserPlatform;
}

async function requestDevice({ description, request }: FoundAdapter, options: GpuOptions): Promise<GPUDevice> {
  const requiredLimits = wantedLimits(description, options.limits ?? "adapter");
  const requiredFeatures =
    options.features === "none" ? [] : FEATURES.filter((it) => description.features.includes(it));
  const adapter = await request();
  return adapter.requestDevice({ label: description.name, requiredFeatures, requiredLimits });
}

/** Limits to ask for, each checked against the adapter's: Dawn's own refusal names no adapter. */
function wantedLimits(
  { name, limits: has }: AdapterDescription,
  wanted: "adapter" | "default" | Readonly<Record<string, number>>,
): Record<string, number> {
  if (wanted === "default") return {};
  if (wanted === "adapter") {
    const { maxBufferSize, maxStorageBufferBindingSize } = has;
    // Eight storage buffers a stage stay eight, whatever the adapter offers: a page may get no more.
    return { maxBufferSize, maxStorageBufferBindingSize };
  }
  for (const [limit, need] of Object.entries(wanted)) {
    const have = has[limit];
    if (have === undefined) throw new RangeError(`limits: ${limit} is no limit of WebGPU; see GPUSupportedLimits`);
    const enough = limit.startsWith("min") ? have <= need : have >= need; // alignments are better when smaller
    if (!enough) {
      throw new AdapterUnavailableError(
        `adapter "${name}": ${limit} is ${have}, expected ${need}; choose another adapter with --adapter`,
      );
    }
  }
  return { ...wanted };
}

async function wrap(
  device: GPUDevice,
  adapter: AdapterDescription,
  { waitFor }: Platform,
  onUncapturedError: GpuOptions["onUncapturedError"],
): Promise<Gpu> {
  const lost = device.lost.then(({ reason, message }) => ({ reason: reason ?? "unknown", message }));
  // WebGPU may hand over a device that is lost already.
  const early = await Promise.race([device.lost, Promise.resolve(undefined)]);
  if (early !== undefined) throw new DeviceLostError(`adapter "${adapter.name}": lost on opening: ${early.message}`);
  const memory = new BufferLedger();
  const uncaptured: (OutOfMemoryError | GpuValidationError)[] = [];
  device.onuncapturederror = (event) => {
    event.preventDefault(); // it is told here: a browser need not print it as well
    const { error } = event;
    const typed = typedError(error, `adapter "${adapter.name}"`);
    if (uncaptured.length < UNCAPTURED_KEPT) uncaptured.push(typed);
    onUncapturedError?.(typed);
  };
  const state = { lost: false };
  let closed = false;
  void lost.then(() => {
    state.lost = !closed;
  });
  const close = () => {
    closed = true;
    memory.clear();
    device.destroy();
  };
  const features = new Set<string>(device.features);
  return {
    device,
    adapter,
    features,
    limits: readLimits(device.limits),
    memory,
    off: new Set(),
    uncaptured,
    lost,
    state,
    waitFor,
    close,
  };
}
