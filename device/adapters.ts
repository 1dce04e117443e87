/** What adapters there are and which one is meant: descriptions, their order, and the selector of `--adapter`. */
import { AdapterUnavailableError } from "./errors.ts";

/** The limits that ingle counts with. All are in the first version of WebGPU. */
export const CORE_LIMITS = [
  "maxBindGroups",
  "maxBufferSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxUniformBufferBindingSize",
  "maxUniformBuffersPerShaderStage",
  "minStorageBufferOffsetAlignment",
  "minUniformBufferOffsetAlignment",
] as const satisfies (keyof GPUSupportedLimits)[];

/** WebGPU's limits by name: bytes, counts and lanes. Those above are always there, later ones where the host has them. */
export type Limits = Readonly<Record<(typeof CORE_LIMITS)[number], number>> & Readonly<Record<string, number>>;

/** An adapter as found, whether or not it was opened. */
export interface AdapterDescription {
  /** Place in the list of `listAdapters`, and so what a number in `--adapter` means. */
  readonly index: number;
  /** As the driver calls itself, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)". */
  readonly name: string;
  readonly vendor: string;
  readonly architecture: string;
  /** Driver and version as the platform tells them; empty in most browsers. */
  readonly driver: string;
  readonly kind: "hardware" | "software";
  /** Who brought the driver: the system, an npm package, or the browser. */
  readonly origin: "system" | "npm" | "browser";
  readonly features: readonly string[];
  /** Of WGSL, as the host has them on every adapter. */
  readonly languageFeatures: readonly string[];
  readonly limits: Limits;
  /** Lanes of a subgroup, smallest and largest; 0 where the adapter has no subgroups. */
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
}

/** A found adapter with the way to get at it. `request` gives a fresh GPUAdapter each time, since one makes one device. */
export interface FoundAdapter {
  readonly description: AdapterDescription;
  request(): Promise<GPUAdapter>;
}

/** What a platform (Node, browser) knows. */
export interface AdapterSearch {
  /** Best first: hardware, lavapipe, SwiftShader, other software. `index` is the place. */
  readonly adapters: readonly FoundAdapter[];
  /** Why a source offered nothing, in words fit for an error message. */
  readonly notes: readonly string[];
  /** What a user without an adapter should do here. */
  readonly remedy: string;
}

/** Settles as `arrival` does. */
export type WaitFor = <T>(arrival: Promise<T>) => Promise<T>;

/** The two halves of the platform: `node.ts` and `browser.ts` each export one. */
export interface Platform {
  /** The selector from the environment, if any. */
  defaultSelector(): string | undefined;
  findAdapters(): Promise<AdapterSearch>;
  /** Settles as `arrival` does, which a device was asked for. */
  readonly waitFor: WaitFor;
}

/** Rasterizers that run on the CPU, by the names they give themselves. */
const SOFTWARE = /llvmpipe|lavapipe|swiftshader|softpipe|software|basic render|\bwarp\b|\bcpu\b/i;

/** Gathers what ingle uses of a GPUAdapter. `name` is the platform's; without one the adapter's own words serve. */
export function describe(
  adapter: GPUAdapter,
  origin: AdapterDescription["origin"],
  name?: string,
  languageFeatures: Iterable<string> = [],
): Omit<AdapterDescription, "index"> {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
  const called = name ?? (description || device || `${vendor} ${architecture}`.trim() || "unnamed adapter");
  const software = adapter.info.isFallbackAdapter || SOFTWARE.test(`${called} ${architecture} ${description}`);
  return {
    name: called,
    vendor,
    architecture,
    driver: description,
    kind: software ? "software" : "hardware",
    origin,
    features: [...adapter.features].sort(),
    languageFeatures: [...languageFeatures].sort(),
    limits: readLimits(adapter.limits),
    subgroupMinSize: subgroupMinSize ?? 0,
    subgroupMaxSize: subgroupMaxSize ?? 0,
  };
}

/** The limits as plain numbers: reading one off a GPUSupportedLimits crosses into the driver each time. */
export function readLimits(limits: GPUSupportedLimits): Limits {
  const plain: Record<string, number> = {};
  const values = limits as unknown as Readonly<Record<string, unknown>>; // getters of the prototype, one a limit
  for (const name in values) {
    const value = values[name];
    if (typeof value === "number") plain[name] = value;
  }
  if (!CORE_LIMITS.every((name) => name in plain)) {
    throw new TypeError(`adapter: it tells only the limits ${Object.keys(plain).join(", ")}, expected WebGPU's`);
  }
  return plain as Limits;
}

/** Smaller is better: hardware, lavapipe (f16, subgroups of 8), SwiftShader, then software nobody measured. */
function rank({ kind, name, architecture }: Omit<AdapterDescription, "index">): number {
  if (kind === "hardware") return 0;
  if (/llvmpipe|lavapipe/i.test(name)) return 1;
  return /swiftshader/i.test(`${name} ${architecture}`) ? 2 : 3;
}

/** Puts found adapters in the order of choice, equals as they came, and numbers them. */
export function inOrder(
  found: readonly { description: Omit<AdapterDescription, "index">; request(): Promise<GPUAdapter> }[],
): FoundAdapter[] {
  return [...found]
    .sort((a, b) => rank(a.description) - rank(b.description))
    .map(({ description, request }, index) => ({ description: { index, ...description }, request }));
}

/**
 * The adapter that `selector` means: an index of the list, or part of a name in any case ("lavapipe" is llvmpipe).
 * Without a selector, the first. Throws AdapterUnavailableError that lists what was found.
 */
export function select<T extends { readonly description: AdapterDescription }>(
  search: { readonly adapters: readonly T[]; readonly notes: readonly string[]; readonly remedy: string },
  selector: string | undefined,
): T {
  const { adapters, notes, remedy } = search;
  const reasons = notes.map((note) => `; ${note}`).join("");
  const [first] = adapters;
  if (first === undefined) {
    throw new AdapterUnavailableError(
      `webgpu: no adapter found, expected a GPU or a software driver${reasons}; ${remedy}`,
    );
  }
  const wanted = selector?.trim().toLowerCase();
  if (wanted === undefined || wanted === "") return first;
  const byIndex = /^\d+$/.test(wanted) ? adapters[Number(wanted)] : undefined;
  const part = wanted.replace("lavapipe", "llvmpipe");
  const chosen = byIndex ?? adapters.find(({ description }) => description.name.toLowerCase().includes(part));
  if (chosen !== undefined) return chosen;
  const names = adapters.map(({ description: { index, name } }) => `${index} ${name}`).join(", ");
  throw new AdapterUnavailableError(
    `adapter: no adapter is named "${selector}", expected part of a name or an index of: ${names}${reasons}; ` +
      "run `ingle doctor` to see them",
  );
}
