/** Vulkan's loader as Dawn meets it in Node: which driver files it reads, and where the loader itself comes from. */
import { existsSync, readdirSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { delimiter, join } from "node:path";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Driver files (ICDs) in the order the loader would read them: those the user named in VK_DRIVER_FILES, else the
 * system's. Names of files that are not there are left out: one of them alone leaves Dawn without an adapter.
 */
export function systemDriverFiles(env: Environment = process.env): string[] {
  const named = env.VK_DRIVER_FILES || env.VK_ICD_FILENAMES;
  if (named) return named.split(delimiter).filter((path) => path !== "" && existsSync(path));
  return driverFolders(env).flatMap((folder) => {
    const path = join(folder, "vulkan", "icd.d");
    if (!existsSync(path)) return [];
    const names = readdirSync(path).filter((name) => name.endsWith(".json"));
    return names.sort().map((name) => join(path, name));
  });
}

/** The loader's own search path, from its LoaderInterfaceArchitecture document, "Driver Discovery on Linux". */
function driverFolders(env: Environment): string[] {
  const home = env.HOME || homedir();
  const split = (list: string) => list.split(delimiter).filter((folder) => folder !== "");
  const folders = [
    env.XDG_CONFIG_HOME || join(home, ".config"),
    ...split(env.XDG_CONFIG_DIRS || "/etc/xdg"),
    "/usr/local/etc",
    "/etc",
    env.XDG_DATA_HOME || join(home, ".local", "share"),
    ...split(env.XDG_DATA_DIRS || "/usr/local/share:/usr/share"),
    "/usr/share", // a container's XDG_DATA_DIRS often forgets it
  ];
  return [...new Set(folders)];
}

const RTLD_NOW = 0x2;
const RTLD_GLOBAL = 0x100;
const RTLD_NODELETE = 0x1000; // Node closes what did not register itself; the loader has to stay

/** Loads a shared library so that Dawn finds it by its soname. False where there is no such library. */
function preload(path: string): boolean {
  try {
    process.dlopen({ exports: {} }, path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
    return true;
  } catch (error) {
    // Node looks for an addon in what it opens. That there is none says the library itself was loaded.
    return error instanceof Error && error.message.includes("did not self-register");
  }
}

/** Makes a Vulkan loader available to Dawn: the system's, else the one given. Only Linux needs it. */
export function ensureLoader(spare: string | undefined): void {
  if (process.platform !== "linux" || preload("libvulkan.so.1") || spare === undefined) return;
  preload(spare);
}

/**
 * Calls `work` with the loader pointed at these driver files, and puts the environment back before returning: a
 * browser started by this process would otherwise inherit our list. Dawn reads it in the synchronous part of
 * `requestAdapter`, so `work` may return a promise.
 */
export function withDriverFiles<T>(files: readonly string[], work: () => T): T {
  if (process.platform !== "linux") return work();
  const list = files.join(delimiter);
  const wanted: Environment = {
    VK_DRIVER_FILES: list,
    VK_ICD_FILENAMES: list, // loaders before 1.3.207 know only this name
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR || tmpdir(), // SwiftShader asks for one, any will do
  };
  const before = Object.keys(wanted).map((name) => [name, process.env[name]] as const);
  for (const [name, value] of Object.entries(wanted)) process.env[name] = value;
  try {
    return work();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}
