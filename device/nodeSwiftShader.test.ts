import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cacheFolders, unpackOnce } from "./nodeSwiftShader.ts";

const require = createRequire(import.meta.url);
const ARCHIVE = join(dirname(require.resolve("@sparticuz/chromium")), "..", "..", "bin", "swiftshader.tar.br");
const FILES = ["files.json", "libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];

let cache = "";
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), "ingle-cache-"));
});
afterEach(() => rm(cache, { recursive: true, force: true }));

const unpack = () => unpackOnce(ARCHIVE, "s-1", [cache]);

describe("the driver in the cache", () => {
  test("is unpacked whole, without the rest of the browser, owned by us", async () => {
    const folder = await unpack();
    expect(folder).toBe(join(cache, "s-1"));
    expect((await readdir(folder)).sort()).toEqual(FILES);
    const owners = await Promise.all(FILES.map(async (file) => (await stat(join(folder, file))).uid));
    expect(new Set(owners)).toEqual(new Set([process.getuid?.()]));
    expect(await readdir(cache)).toEqual(["s-1"]); // nothing is left beside it
  });

  test("is unpacked once", async () => {
    const { ino } = await stat(await unpack());
    expect((await stat(await unpack())).ino).toBe(ino);
  });

  test("is whole for each of several that unpack it at once", async () => {
    const seen = async () => (await stat(await unpack())).ino; // what each was given must not be replaced by the next
    const folders = await Promise.all([seen(), seen(), seen(), seen()]);
    expect(new Set(folders).size).toBe(1);
    expect((await readdir(join(cache, "s-1"))).sort()).toEqual(FILES);
    expect(await readdir(cache)).toEqual(["s-1"]);
  });

  test.each([
    ["a file that was cut short", (folder: string) => truncate(join(folder, "libvk_swiftshader.so"), 1000)],
    ["a file that a cleaner took", (folder: string) => rm(join(folder, "libvulkan.so.1"))],
    ["a manifest that is no JSON", (folder: string) => writeFile(join(folder, "files.json"), "{")],
    ["a manifest that is null", (folder: string) => writeFile(join(folder, "files.json"), "null")],
    [
      "a plain file in its place",
      async (folder: string) => {
        await rename(folder, `${folder}-old`);
        await writeFile(folder, "");
      },
    ],
  ])("is made again after %s, by several at once", async (_, spoil) => {
    await spoil(await unpack());
    await Promise.all([unpack(), unpack()]);
    const folder = await unpack();
    expect((await readdir(folder)).sort()).toEqual(FILES);
    expect((await stat(join(folder, "libvk_swiftshader.so"))).size).toBe(6_026_040);
  });

  test("takes with it what a killed process left, and not what one is still writing", async () => {
    const [old, fresh] = [join(cache, "s-0.part-old"), join(cache, "s-0.part-new")];
    await mkdir(old);
    await mkdir(fresh);
    const hoursAgo = new Date(Date.now() - 2 * 3_600_000);
    await utimes(old, hoursAgo, hoursAgo);
    await unpack();
    expect((await readdir(cache)).sort()).toEqual(["s-0.part-new", "s-1"]);
  });

  test("of an archive that is broken is not there at all", async () => {
    const broken = join(cache, "broken.tar.br");
    await writeFile(broken, "no brotli");
    await expect(unpackOnce(broken, "s-1", [cache])).rejects.toThrow();
    expect(await readdir(cache)).toEqual(["broken.tar.br"]);
  });

  test("goes to the next folder where the first is open to others", async () => {
    const open = join(cache, "open");
    await mkdir(open);
    await chmod(open, 0o777);
    expect(await unpackOnce(ARCHIVE, "s-1", [open, join(cache, "ours")])).toBe(join(cache, "ours", "s-1"));
    await expect(unpackOnce(ARCHIVE, "s-1", [open])).rejects.toThrow("expected ours and closed to writers");
  });
});

test("the cache is the user's, or a folder of the user's own in the temporary one", () => {
  const [first, second] = cacheFolders({ XDG_CACHE_HOME: "/c", HOME: "/h" });
  expect(first).toBe("/c/ingle");
  expect(second).toBe(join(tmpdir(), `ingle-${process.getuid?.()}`));
  expect(cacheFolders({ HOME: "/h" })[0]).toBe("/h/.cache/ingle");
});
