import { expect, test } from "vitest";
import type { Folder } from "../../device/files.ts";
import { memorySource } from "../../device/memoryFiles.ts";
import { ModelFormatError } from "../errors.ts";
import { readJson } from "./readJson.ts";

let closed = 0;

function folder(content: string | Uint8Array): Folder {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const open = async (name: string) =>
    name === "config.json" ? { ...memorySource(bytes, name), close: async () => void closed++ } : undefined;
  return { location: "memory", open };
}

test("a file is parsed, a missing one is undefined, and files are closed", async () => {
  closed = 0;
  expect(await readJson(folder('{"hidden_size": 64, "name": "größe"}'), "config.json")).toEqual({
    hidden_size: 64,
    name: "größe",
  });
  expect(await readJson(folder("{}"), "other.json")).toBeUndefined();
  await expect(readJson(folder("{"), "config.json")).rejects.toThrow(ModelFormatError);
  expect(closed).toBe(2);
});

test.each([
  ['{\n  "a": 1,\n}', "config.json: is not valid JSON at line 3, column 1: byte 0x7d (}), expected a key in quotes"],
  ['{"a": 1', 'config.json: is not valid JSON at line 1, column 8: the text ends, expected "}"'],
  ['{"a": NaN}', "at line 1, column 7: byte 0x4e (N), expected a value"],
  ["", "at line 1, column 1: the text ends, expected a value"],
  ["\ufeff{}", "at line 1, column 1: byte 0xef, expected a value"],
  ["<!DOCTYPE html>", "at line 1, column 1: byte 0x3c (<), expected a value"],
])("%j is refused with its place", async (content, message) => {
  await expect(readJson(folder(content), "config.json")).rejects.toMatchObject({
    code: "JSON",
    message: expect.stringContaining(message),
  });
});

test("bytes that are not UTF-8 are refused and not replaced", async () => {
  const bytes = Uint8Array.from([0x22, 0xff, 0x22]);
  await expect(readJson(folder(bytes), "config.json")).rejects.toMatchObject({
    code: "JSON_UTF8",
    message: expect.stringContaining("config.json"),
  });
});

test("a nesting bomb is refused, not a crash", async () => {
  await expect(readJson(folder("[".repeat(2_000_000)), "config.json")).rejects.toMatchObject({ code: "JSON" });
});

test("__proto__ in a file changes nothing but the value", async () => {
  const value = await readJson(folder('{"__proto__": {"polluted": true}}'), "config.json");
  expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
  expect(Object.keys(value as object)).toEqual(["__proto__"]);
});

test("a file too large to be JSON of a model is not read", async () => {
  const source = { ...memorySource(new Uint8Array(0), "tokenizer.json"), size: 300_000_000 };
  await expect(readJson({ location: "x", open: async () => source }, "tokenizer.json")).rejects.toMatchObject({
    code: "LIMIT",
  });
});
