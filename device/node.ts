/** WebGPU in Node: Dawn (npm's `webgpu`) over the system's Vulkan drivers and npm's SwiftShader. */
import { type AdapterDescription, type AdapterSearch, describe, inOrder, type Platform } from "./adapters.ts";
import { AdapterUnavailableError } from "./errors.ts";
import { findSwiftShader, type SwiftShader } from "./nodeSwiftShader.ts";
import { ensureLoader, systemDriverFiles, withDriverFiles } from "./nodeVulkan.ts";
import { waitFor } from "./nodeWaiting.ts";

const REMEDY =
  "run `npm i -D webgpu @sparticuz/chromium` for SwiftShader (linux x64), or install mesa-vulkan-drivers 25 or later " +
  "for lavapipe (in Debian 12 from its backports)";

type Dawn = typeof import("webgpu");

/**
 * What `create()` returned, by the adapter's name. Never emptied: the next garbage collection would take Dawn from under
 * every device that still lives, and the process with it. One a name, so it stays small; it holds no process open.
 */
const held = new Map<string, GPU>();

let search: Promise<AdapterSearch> | undefined; // one search a process: drivers do not come and go

/** The platform of Node: drivers of the system and of npm, `INGLE_ADAPTER` as the selector. */
export const nodePlatform: Platform = {
  defaultSelector: () => process.env.INGLE_ADAPTER || undefined,
  findAdapters() {
    search ??= findAdapters().catch((error: unknown) => {
      search = undefined;
      throw error;
    });
    return search;
  },
  waitFor,
};

async function findAdapters(): Promise<AdapterSearch> {
  const notes: string[] = [];
  const files = systemDriverFiles();
  const npm = files.some((file) => /swiftshader/i.test(file)) ? undefined : await npmSwiftShader(notes);
  if (npm !== undefined) files.push(npm.driverFile);
  ensureLoader(npm?.loader);
  const dawn = await loadDawn();
  publishConstants(dawn);

  const found = [];
  for (const { name, backend } of await enumerate(dawn, files)) {
    const open = () => requestAdapter(dawn, files, name, backend);
    let unused: GPUAdapter | undefined;
    try {
      unused = await open();
    } catch (error) {
      notes.push(error instanceof Error ? error.message : String(error)); // another adapter may work
      continue;
    }
    const origin: AdapterDescription["origin"] = npm !== undefined && /swiftshader/i.test(name) ? "npm" : "system";
    const request = () => {
      const adapter = unused;
      unused = undefined;
      return adapter === undefined ? open() : Promise.resolve(adapter);
    };
    found.push({ description: describe(unused, origin, name, held.get(name)?.wgslLanguageFeatures), request });
  }
  return { adapters: inOrder(found), notes, remedy: REMEDY };
}

/** npm's driver, or nothing and a note. A full disk must not keep anyone from a GPU that works. */
async function npmSwiftShader(notes: string[]): Promise<SwiftShader | undefined> {
  try {
    const result = await findSwiftShader();
    if (typeof result !== "string") return result;
    notes.push(result);
  } catch (error) {
    notes.push(`npm's SwiftShader could not be unpacked: ${error instanceof Error ? error.message : String(error)}`);
  }
  return undefined;
}

async function loadDawn(): Promise<Dawn> {
  try {
    return await import("webgpu");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AdapterUnavailableError(`webgpu: the npm package does not load (${reason}); ${REMEDY}`, { cause });
  }
}

/** WebGPU's own constants, which a browser has as globals and Dawn keeps to itself. */
function publishConstants({ globals }: Dawn): void {
  const constants = globals as Readonly<Record<string, unknown>>;
  for (const name of ["GPUBufferUsage", "GPUMapMode", "GPUShaderStage"]) {
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value: constants[name], configurable: true });
  }
}

/** Backends in the order of preference where one GPU shows up under several. */
const BACKENDS = ["vulkan", "metal", "d3d12", "d3d11", "opengl", "opengles"];

/**
 * Names and backends of all adapters, one a name. Dawn lists them nowhere but in the error for a name that matches none:
 * "* backend: 'vulkan', name: 'llvmpipe (LLVM 15.0.6, 256 bits)'".
 */
async function enumerate(dawn: Dawn, files: readonly string[]): Promise<{ name: string; backend: string }[]> {
  const message = await nothingNamed(dawn, files, "ingle looks for no such name");
  return parseAdapterList(message);
}

/** The part of `enumerate` that reads Dawn's words. */
export function parseAdapterList(message: string): { name: string; backend: string }[] {
  const best = new Map<string, string>();
  for (const [, backend, name] of message.matchAll(/backend: '([^']*)', name: '(.*)'$/gm)) {
    if (backend === undefined || name === undefined || !BACKENDS.includes(backend)) continue;
    const other = best.get(name);
    if (other === undefined || BACKENDS.indexOf(backend) < BACKENDS.indexOf(other)) best.set(name, backend);
  }
  return [...best].map(([name, backend]) => ({ name, backend }));
}

async function nothingNamed(dawn: Dawn, files: readonly string[], name: string): Promise<string> {
  const gpu = dawn.create([`adapter=${name}`]);
  held.set(name, gpu);
  try {
    await withDriverFiles(files, () => gpu.requestAdapter()); // null where there is no adapter at all
    return "";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function requestAdapter(
  dawn: Dawn,
  files: readonly string[],
  name: string,
  backend: string,
): Promise<GPUAdapter> {
  let gpu = held.get(name);
  if (gpu === undefined) {
    // Quantized timestamps step by 100 µs, longer than most dispatches.
    gpu = dawn.create([
      `backend=${backend}`,
      `adapter=${name}`,
      "disable-dawn-features=timestamp_quantization,use_vulkan_zero_initialize_workgroup_memory_extension",
    ]);
    held.set(name, gpu);
  }
  const opened = gpu;
  const adapter = await withDriverFiles(files, () => opened.requestAdapter());
  if (adapter === null)
    throw new AdapterUnavailableError(`adapter "${name}": listed by Dawn, but not given; ${REMEDY}`);
  return adapter;
}
