import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ByteSource } from "../../device/files.ts";
import { memorySource } from "../../device/memoryFiles.ts";
import { openFile } from "../../device/nodeFiles.ts";
import { ModelFormatError } from "../errors.ts";
import { readHeader, streamTensor } from "./safetensors.ts";
import { DTYPE_BITS, elementCount } from "./tensorInfo.ts";

const MALFORMED = join(import.meta.dirname, "../../test/fixtures/malformed");
const verdicts: Record<string, string> = JSON.parse(readFileSync(join(MALFORMED, "verdicts.json"), "utf8"));

function file(header: string | Uint8Array, data: Uint8Array | number = 0, length?: bigint): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + text.length + body.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(body, 8 + text.length);
  return bytes;
}

// "ok", or the code and the tensor of the refusal; anything but a ModelFormatError fails the test.
async function verdict(source: ByteSource): Promise<{ code: string; tensor?: string; message: string }> {
  try {
    await readHeader(source);
    return { code: "ok", message: "" };
  } catch (error) {
    if (!(error instanceof ModelFormatError)) throw error;
    const { code, message, tensor } = error;
    return tensor === undefined ? { code, message } : { code, message, tensor };
  }
}

// Delivers a source's bytes as if each read were answered piece by piece.
function inPieces(source: ByteSource, piece: number): ByteSource {
  return {
    ...source,
    read: async (begin, end, signal) => {
      const bytes = new Uint8Array(end - begin);
      for (let at = begin; at < end; at += piece) {
        bytes.set(await source.read(at, Math.min(end, at + piece), signal), at - begin);
      }
      return bytes;
    },
  };
}

describe("the reference's verdicts", () => {
  test("209 of them are there", () => expect(Object.keys(verdicts)).toHaveLength(209));

  test.each(Object.entries(verdicts))("%s: %s, from memory, from disk and in pieces", async (name, expected) => {
    const path = join(MALFORMED, `${name}.safetensors`);
    const memory = memorySource(await readFile(path), `${name}.safetensors`);
    const fromMemory = await verdict(memory);
    if (expected !== "either") expect(fromMemory.code === "ok" ? "accept" : "refuse").toBe(expected);
    expect(await verdict(inPieces(memory, 7))).toEqual(fromMemory);
    const disk = await openFile(path);
    try {
      const { code, tensor } = await verdict(disk);
      expect({ code, tensor }).toEqual({ code: fromMemory.code, tensor: fromMemory.tensor });
    } finally {
      await disk.close();
    }
  });
});

const entry = (fields: string) => `{"a":{${fields}}}`;
const f32 = (shape: string, offsets: string) => entry(`"dtype":"F32","shape":${shape},"data_offsets":${offsets}`);
const typed = (dtype: string, shape: string, bytes: number) =>
  entry(`"dtype":"${dtype}","shape":${shape},"data_offsets":[0,${bytes}]`);
const u8 = (name: string, begin: number, end: number) =>
  `"${name}":{"dtype":"U8","shape":[${end - begin}],"data_offsets":[${begin},${end}]}`;
const bytesOf = (...parts: (string | number[])[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...Buffer.from(part)] : part)));
const VALID = f32("[2]", "[0,8]");

// Row of the malformed-file table, what is in the file, the file, code, tensor at fault.
type Row = [row: string, what: string, bytes: Uint8Array, code: string, tensor?: string];

const rows: Row[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((n): Row => ["a", `${n} bytes`, new Uint8Array(n), "HEADER_TRUNCATED"]),
  ["b", "length 0", new Uint8Array(8), "HEADER_LENGTH"],
  ["b", "length 0 before data", new Uint8Array(80), "HEADER_LENGTH"],
  ["b", "length 1", file("{"), "HEADER_LENGTH"],
  ...[
    100_000_001n,
    1n << 32n,
    1n << 53n,
    (1n << 53n) + 1n,
    1n << 62n,
    1n << 63n,
    (1n << 64n) - 1n,
    (1n << 64n) - 8n,
  ].map((n): Row => ["c, d", `length ${n}`, file(VALID, 8, n), "HEADER_LENGTH"]),
  ["e", "length 100,000,000 in a small file", file(VALID, 8, 100_000_000n), "HEADER_LENGTH"],
  ["e", "length past the end by one", file(VALID, 0, BigInt(VALID.length + 1)), "HEADER_LENGTH"],
  ["e", "length one short", file(VALID, 8, BigInt(VALID.length - 1)), "HEADER_JSON"],
  ["f", "0xff in a name", file(bytesOf('{"', [0xff], '":{}}')), "HEADER_UTF8"],
  ["f", "overlong slash", file(bytesOf('{"', [0xc0, 0xaf], '":{}}')), "HEADER_UTF8"],
  ["f", "surrogate in three bytes", file(bytesOf('{"', [0xed, 0xa0, 0x80], '":{}}')), "HEADER_UTF8"],
  ["f", "cut in a character at the end", file(bytesOf("{}", [0xe2, 0x82])), "HEADER_UTF8"],
  ["f", "code point above 10ffff", file(bytesOf('{"', [0xf4, 0x90, 0x80, 0x80], '":{}}')), "HEADER_UTF8"],
  ["f", "lone high surrogate escaped", file('{"\\ud800":{}}'), "HEADER_JSON"],
  ["f", "lone low surrogate escaped", file('{"\\udc00":{}}'), "HEADER_JSON"],
  ["f", "high surrogate before a letter", file('{"\\ud800\\u0041":{}}'), "HEADER_JSON"],
  ["g", "byte order mark", file(bytesOf([0xef, 0xbb, 0xbf], "{}")), "HEADER_JSON"],
  ["g", "byte order mark of UTF-16", file(bytesOf([0xff, 0xfe], "{}")), "HEADER_UTF8"],
  ...[
    "{} x",
    "{}}",
    "{}\0\0",
    "\0{}",
    "{}\u00a0",
    "\u00a0{}",
    "{}\v",
    "/* */{}",
    "{}//",
    '{"a"}',
    '{"a" 1}',
    "{,}",
    "{'a':1}",
    "{a:1}",
    `{${u8("a", 0, 0)},}`,
    `{${u8("a", 0, 0)}`,
    '{"a',
    '{"a\n":{}}',
    '{"a\\x":{}}',
    '{"a\\u12g4":{}}',
    '{"a\\',
    "} ",
    "{{}}",
  ].map((text): Row => ["h", JSON.stringify(text), file(text), "HEADER_JSON"]),
  ["h", "no value", file('{"a":}'), "HEADER_JSON", "a"],
  ...["NaN", "Infinity", "nul", "01", "1.", ".5", "1e", "+1", "--1", "0x10"].map(
    (token): Row => [
      "h, q",
      `offset ${token}`,
      file(f32("[2]", `[0,${token}]`), 8),
      token === "nul" ? "FIELDS" : "HEADER_JSON",
      "a",
    ],
  ),
  ...["[]", "null", "12", '"x"', "true", "  "].map((text): Row => ["i", text, file(text), "HEADER_JSON"]),
  ["j", "100,000 [", file("[".repeat(100_000)), "HEADER_JSON"],
  ["j", "100,000 { in a member", file(`{"a":${'{"a":'.repeat(100_000)}`), "FIELDS", "a"],
  ["j", "100,000 [ in a shape", file(f32("[".repeat(100_000), "[0,8]")), "FIELDS", "a"],
  ["j", "100,000 [ in metadata", file(`{"__metadata__":${"[".repeat(100_000)}`), "METADATA"],
  ["j", "2,000 dimensions", file(f32(`[${"1,".repeat(1999)}1]`, "[0,4]"), 4), "LIMIT", "a"],
  [
    "j",
    "17 names of 9,000 letters",
    file(`{${Array.from({ length: 17 }, (_, i) => u8(`${"x".repeat(9000)}${i}`, i, i + 1)).join()}}`, 17),
    "LIMIT",
  ],
  ["k", "one key twice, one range", file(`{${u8("a", 0, 4)},${u8("a", 0, 4)}}`, 4), "DUPLICATE_KEY", "a"],
  ["l", "one key twice, two ranges", file(`{${u8("a", 0, 4)},${u8("a", 4, 8)}}`, 8), "DUPLICATE_KEY", "a"],
  ["l", "one key twice, once escaped", file(`{${u8("a", 0, 4)},${u8("\\u0061", 4, 8)}}`, 8), "DUPLICATE_KEY", "a"],
  [
    "l",
    "__proto__ twice",
    file(`{${u8("__proto__", 0, 4)},${u8("__proto__", 4, 8)}}`, 8),
    "DUPLICATE_KEY",
    "__proto__",
  ],
  [
    "l",
    "an emoji twice, once escaped",
    file(`{${u8("😀", 0, 4)},${u8("\\ud83d\\uDE00", 4, 8)}}`, 8),
    "DUPLICATE_KEY",
    "😀",
  ],
  [
    "l",
    "dtype twice",
    file(entry('"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]'), 1),
    "DUPLICATE_KEY",
    "a",
  ],
  [
    "l",
    "shape twice",
    file(entry('"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]'), 1),
    "DUPLICATE_KEY",
    "a",
  ],
  [
    "l",
    "offsets twice",
    file(entry('"data_offsets":[0,1],"dtype":"U8","shape":[1],"data_offsets":[0,1]'), 1),
    "DUPLICATE_KEY",
    "a",
  ],
  ["l", "__metadata__ twice", file('{"__metadata__":{},"__metadata__":{}}'), "DUPLICATE_KEY"],
  ["l", "__metadata__ twice, once escaped", file('{"__metadata__":{},"__\\u006detadata__":{}}'), "DUPLICATE_KEY"],
  ["l", "one metadata key twice", file('{"__metadata__":{"x":"1","x":"1"}}'), "DUPLICATE_KEY"],
  ...["1", "null", "[]", "{}", "true"].map(
    (value): Row => ["n", `metadata value ${value}`, file(`{"__metadata__":{"x":${value}}}`), "METADATA"],
  ),
  ...["1", "null", "[]", '"x"'].map(
    (value): Row => ["n", `metadata ${value}`, file(`{"__metadata__":${value}}`), "METADATA"],
  ),
  ...["f32", "F32 ", " F32", "F12", "", "float32", "F\\u0033", "constructor", "__proto__", "F8", "BF16\\u0000"].map(
    (dtype): Row => ["o", `dtype ${JSON.stringify(dtype)}`, file(typed(dtype, "[2]", 8), 8), "UNKNOWN_DTYPE", "a"],
  ),
  ...["1", "null", "[]", "{}"].map(
    (value): Row => ["o", `dtype is ${value}`, file(entry(`"dtype":${value}`)), "FIELDS", "a"],
  ),
  ["p", "no field", file(entry("")), "FIELDS", "a"],
  ["p", "no dtype", file(entry('"shape":[2],"data_offsets":[0,8]'), 8), "FIELDS", "a"],
  ["p", "no shape", file(entry('"dtype":"F32","data_offsets":[0,8]'), 8), "FIELDS", "a"],
  ["p", "no offsets", file(entry('"dtype":"F32","shape":[2]'), 8), "FIELDS", "a"],
  ["p", "one field more", file(entry('"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1'), 8), "FIELDS", "a"],
  ["p", "field in capitals", file(entry('"DType":"F32","shape":[2],"data_offsets":[0,8]'), 8), "FIELDS", "a"],
  ["p", "no offset", file(f32("[2]", "[]"), 8), "FIELDS", "a"],
  ["p", "one offset", file(f32("[2]", "[8]"), 8), "FIELDS", "a"],
  ["p", "three offsets", file(f32("[2]", "[0,8,8]"), 8), "FIELDS", "a"],
  ...["2", '"2"', "{}", "null"].map(
    (value): Row => ["p", `shape ${value}`, file(f32(value, "[0,8]"), 8), "FIELDS", "a"],
  ),
  ...["8", '"0,8"', "{}", "null"].map(
    (value): Row => ["p", `offsets ${value}`, file(f32("[2]", value), 8), "FIELDS", "a"],
  ),
  ...["[]", "3", '"x"', "null"].map((value): Row => ["p", `entry ${value}`, file(`{"a":${value}}`), "FIELDS", "a"]),
  ...["-1", "-0", "2.0", "2.5", "2e0", "0.2e1", "2E+0", "-1e3"].flatMap((token): Row[] => [
    ["q", `shape ${token}`, file(f32(`[${token}]`, "[0,8]"), 8), "NUMBER", "a"],
    ["q", `offset ${token}`, file(f32("[2]", `[0,${token}]`), 8), "NUMBER", "a"],
  ]),
  ...['"2"', "null", "true", "[2]", "{}"].flatMap((token): Row[] => [
    ["q", `shape of ${token}`, file(f32(`[${token}]`, "[0,8]"), 8), "FIELDS", "a"],
    ["q", `offset of ${token}`, file(f32("[2]", `[0,${token}]`), 8), "FIELDS", "a"],
  ]),
  ...["9007199254740992", "9007199254740993", "18446744073709551614", "18446744073709551624", "9".repeat(400)].flatMap(
    (token): Row[] => [
      ["r", `shape ${token.slice(0, 24)}`, file(f32(`[${token}]`, "[0,8]"), 8), "OVERFLOW", "a"],
      ["r", `offset ${token.slice(0, 24)}`, file(f32("[2]", `[0,${token}]`), 8), "OVERFLOW", "a"],
    ],
  ),
  ["r", "offset 2^53 - 1 passes it in the file", file(f32("[2]", "[0,9007199254740991]"), 8), "OVERFLOW", "a"],
  ["s", "2^40 × 2^40", file(f32("[1099511627776,1099511627776]", "[0,8]"), 8), "OVERFLOW", "a"],
  ["s", "2^32 × 2^32, which is 0 in 64 bits", file(f32("[4294967296,4294967296]", "[0,0]")), "OVERFLOW", "a"],
  ["s", "2^51 elements of 64 bits", file(typed("I64", "[2251799813685248]", 0)), "OVERFLOW", "a"],
  ["s", "one times 2^53 - 1", file(typed("U8", "[1,9007199254740991]", 8), 8), "OVERFLOW", "a"],
  ["t", "end before begin", file(f32("[2]", "[8,0]"), 8), "OFFSETS", "a"],
  ["t", "first begins at 4", file(f32("[2]", "[4,12]"), 12), "OFFSETS", "a"],
  ["t", "hole", file(`{${u8("a", 0, 4)},${u8("b", 5, 8)}}`, 8), "OFFSETS", "b"],
  ["t", "overlap", file(`{${u8("a", 0, 4)},${u8("b", 3, 8)}}`, 8), "OFFSETS", "b"],
  [
    "t",
    "ten tensors, one range",
    file(`{${[..."abcdefghij"].map((name) => u8(name, 0, 4)).join()}}`, 4),
    "OFFSETS",
    "b",
  ],
  ["t", "empty tensor inside another", file(`{${u8("a", 0, 4)},${u8("b", 2, 2)}}`, 4), "OFFSETS", "b"],
  ["t", "empty tensor past the end", file(`{${u8("a", 0, 4)},${u8("b", 9, 9)}}`, 4), "OFFSETS", "b"],
  ["u", "range one element short", file(f32("[3]", "[0,8]"), 8), "SIZE_MISMATCH", "a"],
  ["u", "range of another dtype", file(typed("F16", "[2]", 8), 8), "SIZE_MISMATCH", "a"],
  ["u", "empty shape with bytes", file(f32("[0]", "[0,8]"), 8), "SIZE_MISMATCH", "a"],
  ["u", "rank 0 with two elements", file(f32("[]", "[0,8]"), 8), "SIZE_MISMATCH", "a"],
  ["u", "shape with elements, no bytes", file(f32("[2]", "[0,0]")), "SIZE_MISMATCH", "a"],
  ["v", "F4 [3]", file(typed("F4", "[3]", 2), 2), "MISALIGNED", "a"],
  ["v", "F6_E2M3 [2]", file(typed("F6_E2M3", "[2]", 2), 2), "MISALIGNED", "a"],
  ["v", "F6_E3M2 [5]", file(typed("F6_E3M2", "[5]", 4), 4), "MISALIGNED", "a"],
  ["w", "cut by one", file(VALID, 7), "INCOMPLETE"],
  ["w", "cut to the header", file(VALID), "INCOMPLETE"],
  ["w", "one more", file(VALID, 9), "TRAILING"],
  ["w", "a zip behind it", file(VALID, bytesOf(new Array(8).fill(0), "PK\x03\x04")), "TRAILING"],
  ["w", "no tensor, data", file("{}", 4), "TRAILING"],
  ["w", "a page", bytesOf("<!DOCTYPE html><html><body>404</body></html>"), "HEADER_LENGTH"],
  ["w", "a page with line ends", bytesOf("\r\n<html>\r\n<body>"), "HEADER_LENGTH"],
  ["w", "JSON", bytesOf('{"error":"Repository not found"}'), "HEADER_LENGTH"],
  ["w", "a pointer of git-lfs", bytesOf("version https://git-lfs.github.com/spec/v1\n"), "HEADER_LENGTH"],
  ["w", "GGUF", bytesOf("GGUF", [3, 0, 0, 0], new Array(64).fill(0)), "HEADER_LENGTH"],
  ["w", "pickle in a zip", bytesOf("PK\x03\x04", new Array(64).fill(8)), "HEADER_LENGTH"],
  ["m", "name __proto__", file(`{${u8("__proto__", 0, 4)}}`, 4), "ok"],
  ["m", "name constructor", file(`{${u8("constructor", 0, 4)}}`, 4), "ok"],
  ["m", "name toString", file(`{${u8("toString", 0, 4)}}`, 4), "ok"],
  ["m", "empty name", file(`{${u8("", 0, 4)}}`, 4), "ok"],
  ["m", "name of control characters", file(`{${u8("\\u001b]0;x\\u0007", 0, 4)}}`, 4), "ok"],
  ["m", "name that turns text round", file(`{${u8("\u202egnp.\u2066", 0, 4)}}`, 4), "ok"],
  ["m", "name of 1 MB", file(`{${u8("n".repeat(1e6), 0, 4)}}`, 4), "ok"],
  ["m", "metadata key __proto__", file('{"__metadata__":{"__proto__":"x"}}'), "ok"],
  ["s", "0 beside 2^52", file(f32("[0,4503599627370496]", "[0,0]")), "ok"],
  ["s", "0 after 2^40 twice", file(f32("[1099511627776,1099511627776,0]", "[0,0]")), "ok"],
  ["t", "header in another order than the data", file(`{${u8("b", 4, 8)},${u8("a", 0, 4)}}`, 8), "ok"],
  ["v", "F4 [4]", file(typed("F4", "[4]", 2), 2), "ok"],
  ["v", "F6_E2M3 [4]", file(typed("F6_E2M3", "[4]", 3), 3), "ok"],
  ["x", "empty header", file("{}"), "ok"],
  ["x", "only metadata", file('{"__metadata__":{}}'), "ok"],
  ["x", "rank 0", file(f32("[]", "[0,4]"), 4), "ok"],
  ["x", "rank 32", file(f32(`[${new Array(32).fill(1)}]`, "[0,4]"), 4), "ok"],
  ["x", "empty tensors at one offset", file(`{${u8("a", 0, 0)},${u8("b", 0, 0)},${u8("c", 0, 4)}}`, 4), "ok"],
  ["x", "empty tensor after one that begins there too", file(`{${u8("c", 0, 4)},${u8("a", 0, 0)}}`, 4), "ok"],
  [
    "y",
    "float at an odd byte",
    file(`{${u8("a", 0, 1)},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5),
    "ok",
  ],
  ["z", "NaN and infinity", file(VALID, Uint8Array.from([0, 0, 192, 127, 0, 0, 128, 255])), "ok"],
  ["h", "white space around", file(` \t\r\n${VALID} \t\r\n`, 8), "ok"],
  ...Object.entries(DTYPE_BITS).map(([dtype, bits]): Row => ["o", dtype, file(typed(dtype, "[8]", bits), bits), "ok"]),
];

describe("the malformed-file table", () => {
  test("has at least 120 cases", () => expect(rows.length).toBeGreaterThanOrEqual(120));

  test.each(rows)("row %s: %s", async (_row, _what, bytes, code, tensor) => {
    const source = memorySource(bytes, "x.safetensors");
    let read = 0;
    const counted: ByteSource = {
      ...source,
      read: (begin, end, signal) => {
        read += end - begin;
        return source.read(begin, end, signal);
      },
    };
    const got = await verdict(counted);
    expect({ code: got.code, tensor: got.tensor }).toEqual({ code, tensor });
    expect(read).toBeLessThanOrEqual(bytes.length);
    expect(got.message).toMatch(code === "ok" ? /^$/ : /^x\.safetensors: /);
  });

  test("names reach the Map and nothing else", async () => {
    const { tensors, metadata } = await readHeader(
      memorySource(file(`{${u8("__proto__", 0, 4)},"__metadata__":{"toString":"x"}}`, 4), "x"),
    );
    expect([...tensors.keys()]).toEqual(["__proto__"]);
    expect([...metadata]).toEqual([["toString", "x"]]);
    expect(Object.hasOwn(Object.prototype, "dtype")).toBe(false);
  });

  test("messages print hostile names inert", async () => {
    const { message } = await verdict(memorySource(file(`{"\\u001b[31mx\u202e":3}`), "x.safetensors"));
    expect(message).toBe('x.safetensors: tensor "\\u{1b}[31mx\\u{202e}": entry is of type number, expected object');
    const long = await verdict(memorySource(file(`{"${"n".repeat(5000)}":3}`), "x.safetensors"));
    expect(long.message.length).toBeLessThan(400);
  });

  test("a source that promises more than it has is not believed", async () => {
    const bytes = file(VALID, 8);
    const lying = { ...memorySource(bytes, "x"), size: 99_999_999, read: memorySource(bytes, "x").read };
    await expect(readHeader(lying)).rejects.toMatchObject({ code: "SOURCE_SHORT" });
  });

  test("an abort ends the reading with its reason", async () => {
    const reason = new Error("enough");
    await expect(readHeader(memorySource(file(VALID, 8), "x"), AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe("pieces", () => {
  const valid = readFileSync(join(MALFORMED, "valid.safetensors"));
  const model = readFileSync(join(import.meta.dirname, "../default/model.safetensors"));
  const hash = (bytes: Iterable<Uint8Array>) => {
    const sum = createHash("sha256");
    for (const piece of bytes) sum.update(piece);
    return sum.digest("hex");
  };

  test.each([1, 7, 4093, 65536, 2 ** 23])("of %i bytes give the same tensors", async (chunkBytes) => {
    for (const bytes of chunkBytes < 4000 ? [valid] : [valid, model]) {
      const source = memorySource(bytes, "model.safetensors");
      for (const info of (await readHeader(inPieces(source, chunkBytes))).tensors.values()) {
        const pieces: Uint8Array[] = [];
        let at = 0;
        for await (const { offset, bytes: piece } of streamTensor(source, info, { chunkBytes })) {
          expect(offset).toBe(at);
          expect(piece.length).toBe(Math.min(chunkBytes, info.end - info.begin - at));
          at += piece.length;
          pieces.push(piece);
        }
        expect(at).toBe(info.end - info.begin);
        expect(hash(pieces)).toBe(hash([bytes.subarray(info.begin, info.end)]));
      }
    }
  });

  test("a file cut at any byte is refused", async () => {
    for (let length = 0; length < valid.length; length++) {
      const { code } = await verdict(memorySource(valid.subarray(0, length), "x"));
      expect(code, `cut at ${length}`).toBe(
        length < 8 ? "HEADER_TRUNCATED" : length < 296 ? "HEADER_LENGTH" : "INCOMPLETE",
      );
    }
  });

  test("a header split at any byte is read the same", async () => {
    const whole = await readHeader(memorySource(valid, "x"));
    for (let cut = 1; cut < 296; cut++) {
      expect(await readHeader(inPieces(memorySource(valid, "x"), cut))).toEqual(whole);
    }
  });

  test("no pieces for an empty tensor, and a piece size must be a whole number", async () => {
    const source = memorySource(valid, "x");
    await expect(streamTensor(source, { begin: 300, end: 300 }).next()).resolves.toMatchObject({ done: true });
    await expect(streamTensor(source, { begin: 0, end: 8 }, { chunkBytes: 0.5 }).next()).rejects.toThrow(
      "chunkBytes is 0.5",
    );
  });

  test("a header longer than the first read is read whole", async () => {
    const names = Array.from({ length: 3000 }, (_, i) => `model.layers.${i}.self_attn.q_proj.weight`);
    const header = `{${names.map((name, i) => u8(name, i, i + 1)).join()}}`;
    expect(header.length).toBeGreaterThan(2 * 65536);
    const { tensors } = await readHeader(memorySource(file(header, 3000), "x"));
    expect([...tensors.keys()]).toEqual(names);
    expect(tensors.get(names[7] ?? "")).toMatchObject({ begin: 8 + header.length + 7, end: 8 + header.length + 8 });
  });
});

describe("other readers agree on valid files", () => {
  interface Other {
    readonly metadata: Map<string, { dtype: string; shape: number[]; data_offsets: number[] }>;
    getTensor(name: string): Uint8Array;
  }
  // That reader takes metadata for a tensor: it is blanked out, and every offset stays.
  const withoutMetadata = (bytes: Uint8Array) => {
    const text = Buffer.from(bytes).toString("latin1");
    return Uint8Array.from(
      Buffer.from(
        text.replace(/"__metadata__":\{[^}]*\},/, (all) => " ".repeat(all.length)),
        "latin1",
      ),
    );
  };
  // The package's entry for import is not marked as a module, so Node can only require it.
  const { SafeTensor }: { SafeTensor: new (bytes: Uint8Array) => Other } = createRequire(import.meta.url)(
    "safetensors",
  );
  const accepted = Object.keys(verdicts).filter((name) => verdicts[name] === "accept" && name !== "key_proto");
  const paths = [
    ...accepted.map((name) => join(MALFORMED, `${name}.safetensors`)),
    join(import.meta.dirname, "../default/model.safetensors"),
  ];

  test.each(paths.filter((path) => existsSync(path)).map((path) => path.split("/").slice(-2).join("/")))(
    "%s",
    async (tail) => {
      const bytes = new Uint8Array(readFileSync(paths.find((path) => path.endsWith(tail)) ?? ""));
      const other = new SafeTensor(withoutMetadata(bytes));
      const { tensors } = await readHeader(memorySource(bytes, tail));
      expect([...tensors.keys()]).toEqual([...other.metadata.keys()]);
      for (const { name, dtype, shape, begin, end } of tensors.values()) {
        expect(other.metadata.get(name)).toEqual({ dtype, shape, data_offsets: [begin, end] });
        expect(Buffer.from(other.getTensor(name)).equals(bytes.subarray(begin, end))).toBe(true);
      }
    },
  );
});

describe("for every", () => {
  test("sequence of bytes, reading ends in a header or a ModelFormatError", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }),
        async (bytes) => void (await verdict(memorySource(bytes, "x"))),
      ),
    );
  });

  test("JSON text as a header, reading ends in a header or a ModelFormatError", async () => {
    const text = fc.oneof(
      fc.json(),
      fc.string({ unit: fc.constantFrom(...'{}[]":,0123-.e\\uad "shape"dtype'.split("")) }),
    );
    await fc.assert(fc.asyncProperty(text, async (json) => void (await verdict(memorySource(file(json, 8), "x")))));
  });

  test("valid file with one byte changed in its header, reading ends in a header or a ModelFormatError", async () => {
    const valid = file(`{${u8("a", 0, 4)},"__metadata__":{"k":"\\u00e9"},${u8("b", 4, 8)}}`, 8);
    await fc.assert(
      fc.asyncProperty(fc.nat(valid.length - 1), fc.nat(255), async (at, byte) => {
        const changed = valid.slice();
        changed[at] = byte;
        await verdict(memorySource(changed, "x"));
      }),
    );
  });

  test("set of tensors, what was written is read", async () => {
    const tensor = fc.record({
      name: fc.string({ unit: "binary" }).filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom("U8" as const, "F16" as const, "F32" as const, "F64" as const),
      shape: fc.array(fc.nat(4), { maxLength: 5 }),
    });
    const many = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(many, fc.nat(12), async (written, padding) => {
        let at = 0;
        const entries = written.map(({ name, dtype, shape }) => {
          const begin = at;
          at += (elementCount(shape) * DTYPE_BITS[dtype]) / 8;
          return [name, { dtype, shape, data_offsets: [begin, at] }] as const;
        });
        const header = `{${entries.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(" ,\n")}}`;
        const { tensors } = await readHeader(memorySource(file(header + " ".repeat(padding), at), "x"));
        const dataBegin = 8 + new TextEncoder().encode(header).length + padding;
        const read = [...tensors.values()].map(({ name, dtype, shape, begin, end }) => {
          return [name, { dtype, shape, data_offsets: [begin - dataBegin, end - dataBegin] }];
        });
        expect(read).toEqual(entries);
      }),
    );
  });
});
