// What a hostile header may cost: time and memory in proportion to its length, whatever is in it. In a file of its own, since the
// peak of a process never falls: `vitest.config.ts` gives it a process of its own.
import { resourceUsage } from "node:process";
import { expect, test } from "vitest";
import type { ByteSource } from "../../device/files.ts";
import { ModelFormatError } from "../errors.ts";
import { readHeader } from "./safetensors.ts";

const HEADER = 95_000_000;

// A file that consists of `length` header bytes, made where they are read: `head`, then `filler` over and over.
function junk(head: string, filler: string, length = HEADER): ByteSource & { readonly read: ByteSource["read"] } {
  const start = Buffer.alloc(8 + head.length);
  start.writeBigUInt64LE(BigInt(length));
  start.write(head, 8);
  const period = Buffer.from(filler.repeat(Math.ceil(65536 / filler.length))); // long, so that making junk is quick
  return {
    name: "junk.safetensors",
    size: 8 + length,
    close: async () => {},
    read: async (begin, end) => {
      const bytes = new Uint8Array(end - begin);
      const phase = Math.max(begin - start.length, 0) % period.length;
      const from = Math.max(start.length - begin, 0);
      for (let at = from - phase; at < bytes.length; at += period.length) {
        bytes.set(period.subarray(Math.max(0, from - at), bytes.length - at), Math.max(at, from));
      }
      if (begin < start.length) bytes.set(start.subarray(begin, end));
      return bytes;
    },
  };
}

const entry = (name: string) => `"${name}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;

const hostile: [what: string, source: ByteSource, code: string][] = [
  ["[ without end", junk("", "["), "HEADER_JSON"],
  ["{ without end", junk("", '{"a":'), "FIELDS"],
  ["white space", junk("", " "), "HEADER_JSON"],
  ["one string that never ends", junk('{"', "n"), "HEADER_JSON"],
  ["one escaped string that never ends", junk('{"', "\\u0041"), "HEADER_JSON"],
  ["emoji in one string that never ends", junk('{"xx', "😀"), "HEADER_JSON"],
  ["backslashes", junk('{"', "\\"), "HEADER_JSON"],
  ["one number", junk('{"a":{"shape":[', "9"), "OVERFLOW"],
  ["one shape", junk('{"a":{"shape":[0', ",0"), "LIMIT"],
  ["one metadata key over and over", junk('{"__metadata__":{"a":"b"', ',"a":"b"'), "DUPLICATE_KEY"],
  ["zero bytes", junk("", "\0"), "HEADER_JSON"],
  ["bytes that are no UTF-8", junk("{", "\x80".repeat(2)), "HEADER_UTF8"],
];

test.each(hostile)(
  "95 MB of %s are refused in memory below 8 headers",
  { timeout: 60_000 },
  async (_what, source, code) => {
    const before = resourceUsage().maxRSS;
    const error: unknown = await readHeader(source).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error).toMatchObject({ code });
    expect(String(error).length).toBeLessThan(600);
    expect((resourceUsage().maxRSS - before) * 1024).toBeLessThan(8 * HEADER);
  },
);

test("a header above 100,000,000 bytes is refused by its length alone, one of exactly that length is not", async () => {
  let bytes = 0;
  const counted = (source: ByteSource): ByteSource => ({
    ...source,
    read: async (begin, end) => {
      bytes += end - begin;
      return await source.read(begin, end);
    },
  });
  await expect(readHeader(counted(junk("{", " ", 100_000_001)))).rejects.toMatchObject({ code: "HEADER_LENGTH" });
  await expect(readHeader(counted(junk("[", " ", 100_000_000)))).rejects.toMatchObject({ code: "HEADER_JSON" });
  expect(bytes).toBeLessThanOrEqual(2 * 65536);
});

test("a header that opens no object is refused after the first read", async () => {
  const source = junk("", "[");
  let bytes = 0;
  const counted: ByteSource = {
    ...source,
    read: async (begin, end) => {
      bytes += end - begin;
      return await source.read(begin, end);
    },
  };
  await expect(readHeader(counted)).rejects.toMatchObject({ code: "HEADER_JSON" });
  expect(bytes).toBeLessThanOrEqual(65536);
});

// A file whose header has `count` members, made without keeping more than its bytes.
function fileOf(count: number, member: (i: number) => string, before = "{", after = "}"): ByteSource {
  const file = Buffer.alloc(8 + before.length + count * (member(count).length + 1) + after.length);
  let end = 8 + file.write(before, 8);
  for (let i = 0; i < count; i++) end += file.write(`${i === 0 ? "" : ","}${member(i)}`, end);
  end += file.write(after, end);
  file.writeBigUInt64LE(BigInt(end - 8));
  const read: ByteSource["read"] = async (begin, stop) => Uint8Array.from(file.subarray(begin, stop));
  return { name: "many.safetensors", size: end, close: async () => {}, read };
}

test.each([
  [1_000_000, "ok"],
  [1_000_001, "LIMIT"],
])("%i tensors take memory below 8 headers: %s", { timeout: 120_000 }, async (count, verdict) => {
  const source = fileOf(count, (i) => entry(`model.layers.${i}.w`));
  const before = resourceUsage().maxRSS;
  const result: unknown = await readHeader(source).then(
    ({ tensors }) => tensors.size,
    (error: unknown) => error,
  );
  if (verdict === "ok") expect(result).toBe(count);
  else expect(result).toMatchObject({ code: verdict, tensor: "model.layers.1000000.w" });
  expect((resourceUsage().maxRSS - before) * 1024).toBeLessThan(8 * source.size);
});

test.runIf(process.env.INGLE_SUITE === "full")(
  "more metadata than a Map can hold is refused",
  { timeout: 120_000 },
  async () => {
    const source = fileOf(1_000_001, (i) => `"${i}":""`, '{"__metadata__":{', "}}");
    await expect(readHeader(source)).rejects.toMatchObject({ code: "LIMIT" });
  },
);

test.runIf(process.env.INGLE_SUITE === "full")(
  "thousands of huge names that hash alike are refused before they are compared",
  { timeout: 60_000 },
  async () => {
    const source = fileOf(5000, (i) => entry("x".repeat(16_384) + String(i).padStart(5, "0")));
    const begin = performance.now();
    await expect(readHeader(source)).rejects.toMatchObject({ code: "LIMIT" });
    expect(performance.now() - begin).toBeLessThan(5000);
  },
);
