import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SourceError } from "./errors.ts";
import { openFile, openFolder } from "./nodeFiles.ts";

let root = "";

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "ingle-files-"));
  mkdirSync(join(root, "model/sub"), { recursive: true });
  writeFileSync(join(root, "model/config.json"), "{}");
  writeFileSync(join(root, "model/sub/a.bin"), "abcdef");
  writeFileSync(join(root, "secret.txt"), "secret");
});

afterAll(() => rmSync(root, { recursive: true }));

// Counted where the system shows them; pipes with a name are made where there is mkfifo.
const linux = existsSync("/proc/self/fd");
const descriptors = () => readdirSync("/proc/self/fd").length;

describe("a folder", () => {
  test("opens its files and those of its folders, and has no others", async () => {
    const folder = openFolder(join(root, "model"));
    expect(folder.location).toBe(join(root, "model"));
    const source = await folder.open("sub/a.bin");
    expect(source).toMatchObject({ name: "sub/a.bin", size: 6 });
    expect(Buffer.from((await source?.read(2, 5)) ?? []).toString()).toBe("cde");
    await source?.close();
    expect(await folder.open("tokenizer.json")).toBeUndefined();
    expect(await folder.open("config.json/x")).toBeUndefined();
  });

  test.each([
    "../secret.txt",
    "sub/../../secret.txt",
    "/etc/passwd",
    "https://x.example/config.json",
    "C:\\x",
    "..",
    ".",
    "",
    "a\0",
    "sub//a.bin",
  ])("does not open %j", async (name) => {
    await expect(openFolder(join(root, "model")).open(name)).rejects.toMatchObject({ code: "SOURCE_NAME" });
  });

  test("follows links, as the hub's cache is made of them", async () => {
    symlinkSync("../secret.txt", join(root, "model/link.txt"));
    const source = await openFolder(join(root, "model")).open("link.txt");
    expect(source?.size).toBe(6);
    await source?.close();
  });

  test("that is missing or a file is refused with its path", () => {
    expect(() => openFolder(join(root, "nowhere"))).toThrow(`MODEL: no such folder ${join(root, "nowhere")}`);
    expect(() => openFolder(join(root, "secret.txt"))).toThrow("is a file, expected a folder");
    writeFileSync(join(root, "model.gguf"), "GGUF");
    expect(() => openFolder(join(root, "model.gguf"))).toThrow("GGUF is not read, take the model's safetensors");
  });

  test.skipIf(!linux)("refuses what is no regular file, without waiting for it", async () => {
    execFileSync("mkfifo", [join(root, "model/pipe")]);
    const folder = openFolder(join(root, "model"));
    await expect(folder.open("pipe")).rejects.toThrow("pipe: is not a regular file");
    await expect(folder.open("sub")).rejects.toMatchObject({ code: "SOURCE_IO" });
  });
});

describe("a file", () => {
  test("that is missing is refused with its path", async () => {
    await expect(openFile(join(root, "x.safetensors"))).rejects.toMatchObject({
      code: "SOURCE_MISSING",
      message: expect.stringContaining("x.safetensors"),
    });
  });

  test("is read at any position, in arrays of their own", async () => {
    const path = join(root, "large.bin");
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
    writeFileSync(path, bytes);
    const source = await openFile(path);
    for (const [begin, end] of [
      [0, 100_000],
      [0, 0],
      [100_000, 100_000],
      [99_999, 100_000],
      [4093, 8192],
    ] as const) {
      const read = await source.read(begin, end);
      expect(Buffer.compare(read, bytes.subarray(begin, end))).toBe(0);
      expect(read.buffer.byteLength).toBe(read.length);
    }
    await source.close();
  });

  test.each([
    [-1, 2],
    [2, 1],
    [0, 7],
    [7, 7],
    [0.5, 2],
    [0, Number.NaN],
    [0, 2 ** 53],
  ])("of 6 bytes gives no bytes %f to %f", async (begin, end) => {
    const source = await openFile(join(root, "secret.txt"));
    await expect(source.read(begin, end)).rejects.toMatchObject({ code: "SOURCE_SHORT" });
    await source.close();
  });

  test("that shrinks after it was opened is an error, never a short answer", async () => {
    const path = join(root, "shrinks.bin");
    writeFileSync(path, new Uint8Array(1000));
    const source = await openFile(path);
    truncateSync(path, 600);
    expect((await source.read(0, 600)).length).toBe(600);
    await expect(source.read(500, 700)).rejects.toMatchObject({
      code: "SOURCE_CHANGED",
      message: expect.stringContaining("ends at byte 600"),
    });
    await source.close();
  });

  test("is not read after it was closed, and may be closed twice", async () => {
    const source = await openFile(join(root, "secret.txt"));
    await source.close();
    await source.close();
    await expect(source.read(0, 1)).rejects.toBeInstanceOf(SourceError);
    await expect(source.read(0, 1)).rejects.toMatchObject({ code: "SOURCE_CLOSED" });
  });

  test("is not read once the signal aborts", async () => {
    const source = await openFile(join(root, "secret.txt"));
    const reason = new Error("enough");
    await expect(source.read(0, 1, AbortSignal.abort(reason))).rejects.toBe(reason);
    await source.close();
  });
});

test.skipIf(!linux)("no descriptor is left behind, whatever happens", async () => {
  const folder = openFolder(join(root, "model"));
  const before = descriptors();
  for (let i = 0; i < 50; i++) {
    const source = await folder.open("config.json");
    await source?.read(0, 9).catch(() => {});
    await source?.close();
    await folder.open("missing");
    await folder.open("sub").catch(() => {});
    await folder.open("../x").catch(() => {});
  }
  expect(descriptors()).toBe(before);
});
