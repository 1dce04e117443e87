/** SwiftShader out of npm's `@sparticuz/chromium`: a software Vulkan driver for machines where none is installed. */
import { createReadStream } from "node:fs";
import { lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

/** Where the unpacked driver lies. */
export interface SwiftShader {
  /** The driver's JSON, for VK_DRIVER_FILES. */
  readonly driverFile: string;
  /** Chromium's Vulkan loader, for machines without one. */
  readonly loader: string;
}

const PACKAGE = "@sparticuz/chromium";
const LOADER = "libvulkan.so.1";
const DRIVER_FILE = "vk_swiftshader_icd.json";
const FILES: readonly string[] = [LOADER, DRIVER_FILE, "libvk_swiftshader.so"];
const MANIFEST = "files.json"; // name → bytes, written last: tells a whole folder from one a cleaner went through
const STALE_MS = 3_600_000; // an unpacking takes a second; what is an hour old was killed

/**
 * The driver, unpacked into the user's cache on first use (7 MB). Returns a sentence instead where the package is missing or
 * does not fit the machine. Throws what the file system throws.
 */
export async function findSwiftShader(): Promise<SwiftShader | string> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    return `npm's ${PACKAGE} brings SwiftShader for linux x64 alone, this is ${process.platform} ${process.arch}`;
  }
  const root = await packageRoot();
  if (root === undefined) return `npm's ${PACKAGE} is not installed`;
  const version: unknown = JSON.parse(await readFile(join(root, "package.json"), "utf8")).version;
  const folder = await unpackOnce(join(root, "bin", "swiftshader.tar.br"), `swiftshader-${String(version)}`);
  return { driverFile: join(folder, DRIVER_FILE), loader: join(folder, LOADER) };
}

async function packageRoot(): Promise<string | undefined> {
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(PACKAGE);
  } catch {
    return undefined; // an optional package: absence is an answer
  }
  for (let folder = dirname(entry); folder !== dirname(folder); folder = dirname(folder)) {
    if (folder.endsWith(join(...PACKAGE.split("/")))) return folder;
  }
  return undefined;
}

/** Folders that may hold the cache, best first. */
export function cacheFolders(env: Readonly<Record<string, string | undefined>> = process.env): string[] {
  const home = env.XDG_CACHE_HOME || join(env.HOME || homedir(), ".cache");
  return [join(home, "ingle"), join(tmpdir(), `ingle-${process.getuid?.() ?? 0}`)];
}

/**
 * Unpacks `archive` (a brotli tar) to `<cache>/<name>` unless a whole copy is there, and returns that folder. Two processes
 * may do so at once: each unpacks beside and renames, and the one that comes second takes the first's.
 */
export async function unpackOnce(archive: string, name: string, folders = cacheFolders()): Promise<string> {
  let failure: unknown;
  for (const parent of folders) {
    try {
      await mkdir(parent, { recursive: true, mode: 0o700 });
      await checkOwner(parent);
      return await unpackInto(archive, parent, name);
    } catch (error) {
      failure = error; // a read-only home: the temporary folder is next
    }
  }
  throw failure;
}

/** A library is loaded from here, so nobody else may have put it there: the temporary folder is open to all. */
async function checkOwner(folder: string): Promise<void> {
  const { uid, mode } = await lstat(folder);
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0) {
    throw new Error(
      `${folder}: owned by user ${uid}, mode ${(mode & 0o777).toString(8)}, expected ours and closed to writers; remove it`,
    );
  }
}

async function unpackInto(archive: string, parent: string, name: string): Promise<string> {
  const target = join(parent, name);
  if (await isWhole(target)) return target;
  await removeStale(parent);
  const beside = await mkdtemp(join(parent, `${name}.part-`));
  try {
    await unpack(archive, beside);
    await publish(beside, target);
  } finally {
    await rm(beside, { recursive: true, force: true });
  }
  return target;
}

async function unpack(archive: string, folder: string): Promise<void> {
  const { extract } = await import("tar-fs");
  // The archive's owner is some user of another machine: root must not hand its libraries to whoever has that number here.
  const others = (path: string) => path !== folder && !FILES.includes(basename(path));
  await pipeline(
    createReadStream(archive),
    createBrotliDecompress(),
    extract(folder, { ignore: others, chown: false }),
  );
  const sizes = await Promise.all(FILES.map(async (file) => [file, (await stat(join(folder, file))).size] as const));
  await writeFile(join(folder, MANIFEST), JSON.stringify(Object.fromEntries(sizes)));
}

/** Moves `beside` to `target`. A broken target is moved out of the way first; a whole one, made meanwhile, stays. */
async function publish(beside: string, target: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await rename(beside, target);
    } catch (error) {
      if (await isWhole(target)) return;
      if (attempt === 3) throw error;
      await rename(target, join(beside, "broken")).catch(() => undefined); // gone already: another process did the same
      await rm(join(beside, "broken"), { recursive: true, force: true });
    }
  }
}

/** Whether every file is there with the bytes it had when it was unpacked. */
async function isWhole(folder: string): Promise<boolean> {
  try {
    const sizes: unknown = JSON.parse(await readFile(join(folder, MANIFEST), "utf8"));
    if (typeof sizes !== "object" || sizes === null) return false;
    const expected = new Map<string, unknown>(Object.entries(sizes));
    const actual = await Promise.all(FILES.map(async (file) => (await stat(join(folder, file))).size));
    return FILES.every((file, i) => expected.get(file) === actual[i]);
  } catch {
    return false;
  }
}

async function removeStale(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.includes(".part-")) continue;
    const path = join(parent, name);
    const age = Date.now() - (await stat(path).catch(() => ({ mtimeMs: Date.now() }))).mtimeMs;
    if (age > STALE_MS) await rm(path, { recursive: true, force: true });
  }
}
