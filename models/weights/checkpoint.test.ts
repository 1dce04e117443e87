import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ByteSource, Folder } from "../../device/files.ts";
import { memorySource } from "../../device/memoryFiles.ts";
import { openFolder } from "../../device/nodeFiles.ts";
import { ModelFormatError } from "../errors.ts";
import { openCheckpoint, openWeights } from "./checkpoint.ts";
import { TensorClaims } from "./claims.ts";

const INDEX = "model.safetensors.index.json";
const FIXTURES = join(import.meta.dirname, "../../test/fixtures/checkpoints");

// A file of U8 tensors: name → values.
function shard(tensors: Record<string, number[]>, metadata?: Record<string, string>): Uint8Array {
  let at = 0;
  const entries = Object.entries(tensors).map(([name, values]) => {
    const begin = at;
    at += values.length;
    return [name, { dtype: "U8", shape: [values.length], data_offsets: [begin, at] }];
  });
  const header = JSON.stringify({
    ...(metadata === undefined ? {} : { __metadata__: metadata }),
    ...Object.fromEntries(entries),
  });
  const bytes = Buffer.concat([Buffer.alloc(8), Buffer.from(header), Buffer.from(Object.values(tensors).flat())]);
  bytes.writeBigUInt64LE(BigInt(header.length));
  return bytes;
}

class MemoryFolder implements Folder {
  readonly location = "my-model";
  readonly opened: string[] = [];
  readonly closed: string[] = [];
  readonly #files: Readonly<Record<string, Uint8Array | string>>;

  constructor(files: Readonly<Record<string, Uint8Array | string>>) {
    this.#files = files;
  }

  async open(name: string): Promise<ByteSource | undefined> {
    const content = this.#files[name];
    if (content === undefined) return undefined;
    this.opened.push(name);
    const source = memorySource(typeof content === "string" ? new TextEncoder().encode(content) : content, name);
    return { ...source, close: async () => void this.closed.push(name) };
  }

  /** Opens, which must fail, and checks that nothing stays open. */
  async refusal(): Promise<ModelFormatError> {
    const error: unknown = await openCheckpoint(this).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (!(error instanceof ModelFormatError)) throw error ?? new Error("was opened");
    expect([...this.closed].sort()).toEqual([...this.opened].sort());
    return error;
  }
}

const index = (weight_map: unknown, metadata?: unknown) => JSON.stringify({ metadata, weight_map });

describe("which files are the model", () => {
  const files = {
    [INDEX]: index({ a: "one.safetensors", b: "two.safetensors" }, { total_size: 5 }),
    "one.safetensors": shard({ a: [1, 2] }, { format: "pt", from: "one" }),
    "two.safetensors": shard({ b: [3, 4, 5] }, { format: "mlx" }),
    "model.safetensors": shard({ a: [9, 9], stray: [9] }),
    "consolidated.safetensors": shard({ stray: [9] }),
    "original/model.safetensors": shard({ stray: [9] }),
  };

  test("only indexed files are opened, each once, and all are closed", async () => {
    const folder = new MemoryFolder(files);
    const checkpoint = await openCheckpoint(folder);
    expect(folder.opened).toEqual([INDEX, "one.safetensors", "two.safetensors"]);
    expect([...checkpoint.tensors.keys()]).toEqual(["a", "b"]);
    expect(checkpoint.bytes).toBe(5);
    expect([...checkpoint.metadata]).toEqual([
      ["format", "pt"],
      ["from", "one"],
    ]);
    expect([...(await checkpoint.read("a"))]).toEqual([1, 2]);
    const pieces: number[][] = [];
    for await (const { bytes } of checkpoint.stream("b", { chunkBytes: 2 })) pieces.push([...bytes]);
    expect(pieces).toEqual([[3, 4], [5]]);
    expect(folder.closed).toEqual([INDEX]);
    await checkpoint.close();
    expect(folder.closed).toEqual([INDEX, "one.safetensors", "two.safetensors"]);
  });

  test("without an index it is model.safetensors", async () => {
    const checkpoint = await openCheckpoint(
      new MemoryFolder({ "model.safetensors": shard({ x: [7] }), "b.safetensors": shard({ y: [1] }) }),
    );
    expect([...checkpoint.tensors.keys()]).toEqual(["x"]);
  });

  test("one file can be opened by itself, and is closed when it is refused", async () => {
    const checkpoint = await openWeights(memorySource(shard({ x: [7] }), "adapter_model.safetensors"));
    expect(checkpoint.location).toBe("adapter_model.safetensors");
    expect([...(await checkpoint.read("x"))]).toEqual([7]);
    let closed = 0;
    const broken = { ...memorySource(new Uint8Array(3), "x"), close: async () => void closed++ };
    await expect(openWeights(broken)).rejects.toMatchObject({ code: "HEADER_TRUNCATED" });
    expect(closed).toBe(1);
  });

  test("a name that is not there is refused with its name", async () => {
    const checkpoint = await openCheckpoint(new MemoryFolder(files));
    await expect(checkpoint.read("c")).rejects.toMatchObject({ code: "MISSING_TENSOR", tensor: "c" });
    expect(() => checkpoint.stream("constructor")).toThrow('my-model: has no tensor "constructor"');
  });

  test("tensors of an indexed file that the index does not name are there, to be claimed or refused", async () => {
    const folder = { ...files, "two.safetensors": shard({ b: [3, 4, 5], "rotary_emb.inv_freq": [1] }) };
    expect([...(await openCheckpoint(new MemoryFolder(folder))).tensors.keys()]).toContain("rotary_emb.inv_freq");
  });
});

describe("an index is refused", () => {
  const one = shard({ a: [1, 2] });
  test.each([
    ["an array", "[]", "INDEX"],
    ["null", "null", "INDEX"],
    ["without weight_map", "{}", "INDEX"],
    ["with a list for weight_map", index([]), "INDEX"],
    ["with an empty weight_map", index({}), "INDEX"],
    ["with a number for a file", index({ a: 1 }), "INDEX"],
    ["that is not JSON", "{", "JSON"],
    ["with a fraction of a byte", index({ a: "one.safetensors" }, { total_size: 2.5 }), "TOTAL_SIZE"],
    ["with text for a size", index({ a: "one.safetensors" }, { total_size: "2" }), "TOTAL_SIZE"],
    [
      "that places a tensor in a file without it",
      index({ a: "one.safetensors", b: "one.safetensors" }),
      "INDEX_TENSOR",
    ],
    ["with a file of another kind", index({ a: "pytorch_model.bin" }), "INDEX_NAME"],
  ])("%s", async (_what, text, code) => {
    const error = await new MemoryFolder({ [INDEX]: text, "one.safetensors": one }).refusal();
    expect(error.code).toBe(code);
    expect(error.message).toMatch(/^model\.safetensors\.index\.json: /);
  });

  test.each([
    "../one.safetensors",
    "a/../../one.safetensors",
    "/etc/one.safetensors",
    "https://evil.example/one.safetensors",
    "file:///one.safetensors",
    "C:\\one.safetensors",
    "C:one.safetensors",
    "..\\one.safetensors",
    "\\\\host\\share\\one.safetensors",
    "./one.safetensors",
    "a//one.safetensors",
    "",
    "..",
    "one\0.safetensors",
    "one.safetensors/",
  ])("that names %j, and nothing is opened", async (name) => {
    const folder = new MemoryFolder({ [INDEX]: index({ a: name }), [name]: one });
    expect(await folder.refusal()).toMatchObject({ code: "INDEX_NAME", tensor: "a" });
    expect(folder.opened).toEqual([INDEX]);
  });

  test("all missing files are listed at once", async () => {
    const names = Array.from({ length: 30 }, (_, i) => `model-${String(i + 1).padStart(5, "0")}-of-00030.safetensors`);
    const weightMap = Object.fromEntries(names.map((name, i) => [`t${i}`, name]));
    const present = names.slice(0, 15).map((name, i) => [name, shard({ [`t${i}`]: [i] })]);
    const { code, message } = await new MemoryFolder({
      [INDEX]: index(weightMap),
      ...Object.fromEntries(present),
    }).refusal();
    expect(code).toBe("SHARD_MISSING");
    expect(message).toContain("15 of the 30 files");
    expect(names.filter((name) => message.includes(name))).toEqual(names.slice(15));
  });

  test("where two files have one tensor, indexed twice or not", async () => {
    const error = await new MemoryFolder({
      [INDEX]: index({ a: "one.safetensors", b: "two.safetensors" }),
      "one.safetensors": one,
      "two.safetensors": shard({ a: [3, 4], b: [5] }),
    }).refusal();
    expect(error).toMatchObject({
      code: "TENSOR_TWICE",
      tensor: "a",
      message: expect.stringContaining("in one.safetensors and in two.safetensors"),
    });
  });

  test("where one of many files is broken, which is named", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `${i}.safetensors`);
    const weightMap = Object.fromEntries(names.map((name, i) => [`t${i}`, name]));
    const shards = names.map((name, i) => [name, i === 13 ? new Uint8Array(5) : shard({ [`t${i}`]: [i] })]);
    const error = await new MemoryFolder({ [INDEX]: index(weightMap), ...Object.fromEntries(shards) }).refusal();
    expect(error).toMatchObject({ code: "HEADER_TRUNCATED", message: expect.stringMatching(/^13\.safetensors: /) });
  });
});

test("total_size may count what is indexed or what is there", async () => {
  const shards = { "one.safetensors": shard({ a: [1, 2], buffer: [0] }) };
  for (const total_size of [2, 3]) {
    const folder = new MemoryFolder({ [INDEX]: index({ a: "one.safetensors" }, { total_size }), ...shards });
    const { bytes, totalSizeFault } = await openCheckpoint(folder);
    expect({ bytes, totalSizeFault }).toEqual({ bytes: 3, totalSizeFault: undefined });
  }
});

test.each([1, 4])(
  "total_size %i instead of 2 or 3 is told after a missing tensor and after a foreign one",
  async (total_size) => {
    const checkpoint = await openCheckpoint(
      new MemoryFolder({
        [INDEX]: index({ a: "one.safetensors" }, { total_size }),
        "one.safetensors": shard({ a: [1, 2], b: [0] }),
      }),
    );
    const code = (...claimed: string[]): unknown => {
      const claims = new TensorClaims(checkpoint);
      for (const name of claimed) claims.claim(name);
      try {
        return claims.finish();
      } catch (error) {
        return error instanceof ModelFormatError ? error.code : error;
      }
    };
    expect(code("a", "b", "c")).toBe("MISSING_TENSOR");
    expect(code("a")).toBe("UNKNOWN_TENSOR");
    expect(code("a", "b")).toBe("TOTAL_SIZE");
    expect(checkpoint.totalSizeFault?.message).toContain(`total_size is ${total_size}, the tensors have 3 bytes`);
  },
);

test("every k-th failure of opening or reading leaves nothing open", async () => {
  const names = ["one.safetensors", "two.safetensors", "three.safetensors"];
  const weightMap = Object.fromEntries(names.map((name) => [name, name]));
  const content = new Map(names.map((name) => [name, shard({ [name]: [1] })]));
  for (let k = 1; ; k++) {
    let calls = 0;
    let open = 0;
    const call = () => {
      if (++calls === k) throw new Error(`failure ${k}`);
    };
    const folder: Folder = {
      location: "x",
      open: async (name) => {
        call();
        const bytes = name === INDEX ? new TextEncoder().encode(index(weightMap)) : content.get(name);
        if (bytes === undefined) return undefined;
        open++;
        const source = memorySource(bytes, name);
        const read: ByteSource["read"] = async (begin, end) => {
          call();
          return await source.read(begin, end);
        };
        return { ...source, read, close: async () => void open-- };
      },
    };
    const failure: unknown = await openCheckpoint(folder).then(
      (checkpoint) => checkpoint.close(),
      (error: unknown) => error,
    );
    expect(open).toBe(0);
    if (failure === undefined) {
      expect(k).toBe(calls + 1);
      break;
    }
    expect(failure).toMatchObject({ message: `failure ${k}` });
  }
});

describe("published checkpoints", () => {
  test("three shards are one model", async () => {
    const checkpoint = await openCheckpoint(openFolder(join(FIXTURES, "plain-sharded")));
    try {
      expect(checkpoint.tensors.size).toBe(21);
      expect(checkpoint.bytes).toBe(164480);
      expect(new Set([...checkpoint.tensors.values()].map(({ source }) => source.name)).size).toBe(3);
      for (const [name, { begin, end }] of checkpoint.tensors)
        expect((await checkpoint.read(name)).length).toBe(end - begin);
    } finally {
      await checkpoint.close();
    }
  });

  test.each(["shard-missing", "index-tensor-absent", "tensor-in-two-shards", "safetensors-empty", "no-safetensors"])(
    "%s is refused",
    async (name) => {
      const path = join(FIXTURES, name);
      const { must_name }: { must_name: string[] } = JSON.parse(
        readFileSync(join(path, "expected_error.json"), "utf8"),
      );
      const error: unknown = await openCheckpoint(openFolder(path)).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(ModelFormatError);
      for (const word of must_name) expect(String(error)).toContain(word);
    },
  );
});
