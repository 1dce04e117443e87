/** The tokenizer against ids and texts that Rust `tokenizers` made (test/oracles/tokenizers.py), and against hostile files. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { memoryFolder } from "../../device/memoryFiles.ts";
import { openFolder } from "../../device/nodeFiles.ts";
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

interface Encoding {
  text?: string;
  ids: number[];
  plain?: number[];
  added?: number[];
}

interface Decoding {
  ids: number[];
  kept: string;
  skipped: string;
}

interface Oracle {
  texts: string[];
  real: { name: string; encode: Encoding[]; decode: Decoding[] }[];
  decoderVocab: string[];
  decoders: { name: string; decoder: unknown; decode: Decoding[] }[];
  models: object[];
  made: { name: string; model: number; file: object; encode: Encoding[] }[];
}

const FIXTURES = "test/fixtures/text";
const oracle: Oracle = readFixture("oracle.json");
const stories = await fromFixture("stories260k");
const smollm2 = await fromFixture("smollm2");
const real: [string, Tokenizer][] = [
  ["stories260k", stories],
  ["smollm2", smollm2],
];

function readFixture<T>(name: string): T {
  return JSON.parse(readFileSync(`${FIXTURES}/${name}`, "utf8"));
}

async function fromFixture(name: string): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(openFolder(`${FIXTURES}/${name}`));
  if (tokenizer === undefined) throw new Error(`${name}: fixture has no tokenizer`);
  return tokenizer;
}

async function made(file: object, config: object = {}): Promise<Tokenizer> {
  const folder = memoryFolder({
    "tokenizer.json": JSON.stringify(file),
    "tokenizer_config.json": JSON.stringify(config),
  });
  const tokenizer = await loadTokenizer(folder);
  if (tokenizer === undefined) throw new Error("no tokenizer.json");
  return tokenizer;
}

/** A tokenizer.json with a vocabulary of `tokens`, ids in order, and nothing else but `parts`. */
function simple(tokens: readonly string[], parts: object = {}): object {
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return { normalizer: null, pre_tokenizer: null, decoder: null, model: { type: "BPE", vocab, merges: [] }, ...parts };
}

function expectEncodings(tokenizer: Tokenizer, rows: readonly Encoding[]): void {
  const wrong: unknown[] = [];
  for (const [i, row] of rows.entries()) {
    const text = row.text ?? oracle.texts[i] ?? "";
    const ways: [number[], boolean, boolean][] = [
      [row.ids, false, true],
      [row.plain ?? row.ids, false, false],
      [row.added ?? row.ids, true, true],
    ];
    for (const [want, addSpecialTokens, parseSpecial] of ways) {
      const got = tokenizer.encode(text, { addSpecialTokens, parseSpecial });
      const control = (id: number) => tokenizer.specialIds.has(id) && id !== 0; // 0 is the unknown token
      if (!parseSpecial && want.some(control)) {
        // Rust's own plain mode lets the model spell a control token; ours must not
        if (got.some(control)) wrong.push({ text, got });
      } else if (got.join() !== want.join()) wrong.push({ text, addSpecialTokens, parseSpecial, got, want });
    }
  }
  expect(wrong).toEqual([]);
}

function streamed(tokenizer: Tokenizer, ids: readonly number[], skipSpecial: boolean): string {
  const stream = tokenizer.stream({ skipSpecial });
  const pieces = ids.map((id) => stream.push(id));
  return [...pieces, stream.end()].join("");
}

describe.each(real)("%s", (name, tokenizer) => {
  test("gives the recorded ids of every string", () => {
    const rows = readFixture<{ text: string; ids: number[]; decoded?: string }[]>(`${name}/expected-tokens.json`);
    expect(rows.length).toBeGreaterThanOrEqual(300);
    for (const { text, ids, decoded } of rows) {
      expect(tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: true })).toEqual(ids);
      expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(decoded ?? text);
    }
  });

  test("encodes as Rust: plain, parsed and with its own special tokens", () => {
    expectEncodings(tokenizer, oracle.real.find((entry) => entry.name === name)?.encode ?? []);
  });

  test("decodes any list of ids as Rust, whole and as a stream", () => {
    for (const { ids, kept, skipped } of oracle.real.find((entry) => entry.name === name)?.decode ?? []) {
      expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(kept);
      expect(tokenizer.decode(ids, { skipSpecial: true })).toBe(skipped);
      expect(streamed(tokenizer, ids, true)).toBe(skipped);
    }
  });

  test("streams whole characters only, which join to the whole, for every list of ids", () => {
    const ids = fc.array(fc.integer({ min: 0, max: tokenizer.size + 2 }), { maxLength: 40 });
    fc.assert(
      fc.property(ids, fc.boolean(), (list, skipSpecial) => {
        const stream = tokenizer.stream({ skipSpecial });
        const pieces = [...list.map((id) => stream.push(id)), stream.end()];
        expect(pieces.join("")).toBe(tokenizer.decode(list, { skipSpecial }));
        for (const piece of pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
      }),
      { numRuns: 500 },
    );
  });

  test("gives no control id for plain text, for every text", () => {
    const part = fc.oneof(fc.constantFrom(...tokenizer.specialTexts), fc.string({ unit: "binary" }), fc.string());
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        const ids = tokenizer.encode(parts.join(""), { addSpecialTokens: false, parseSpecial: false });
        expect(ids.filter((id) => tokenizer.specialIds.has(id))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe("made tokenizers encode as Rust", () => {
  test.each(oracle.made)("$name", async ({ model, file, encode }) => {
    expect(encode.length).toBeGreaterThan(0);
    expectEncodings(await made({ ...file, model: oracle.models[model] }), encode);
  });
});

describe("decoders decode and stream as Rust", () => {
  test.each(oracle.decoders)("$name", async ({ decoder, decode }) => {
    const added = ["<s>", "</s>"].map((content, i) => ({ id: i + 1, content, special: true }));
    const tokenizer = await made(simple(oracle.decoderVocab, { decoder, added_tokens: added }));
    expect(decode.length).toBeGreaterThan(20);
    for (const { ids, kept, skipped } of decode) {
      expect(tokenizer.decode(ids, { skipSpecial: false }), `ids ${ids}`).toBe(kept);
      expect(tokenizer.decode(ids, { skipSpecial: true }), `ids ${ids}`).toBe(skipped);
    }
  });
});

describe("what one token is", () => {
  test("shown alone keeps its space, and control tokens their names", () => {
    const shown = (tokenizer: Tokenizer, text: string) => {
      const ids = tokenizer.encode(text, { addSpecialTokens: true, parseSpecial: true });
      return ids.map((id) => tokenizer.tokenText(id));
    };
    expect(shown(stories, "Once upon a time<unk>\n").join("|")).toBe("<s>| Once| upon| a| time|<unk>| |\n");
    expect(shown(smollm2, " upon a time<|im_end|>")).toEqual([" upon", " a", " time", "<|im_end|>"]);
    expect(smollm2.tokenText(49152)).toBe("");
    expect(stories.tokenText(-1)).toBe("");
  });

  test("as bytes it joins with others to a text's own, cut characters too", () => {
    const text = " the cat 🐱 was 高兴 naïve";
    for (const tokenizer of [stories, smollm2]) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
      expect(ids.some((id) => tokenizer.tokenText(id).includes("\uFFFD"))).toBe(true);
      const bytes = Uint8Array.from(ids.flatMap((id) => Array.from(tokenizer.tokenBytes(id))));
      expect(new TextDecoder("utf-8", { fatal: true }).decode(bytes).trim()).toBe(text.trim());
    }
    expect(Array.from(smollm2.tokenBytes(49152))).toEqual([]);
  });

  test("stands for no more of a text than longestToken", () => {
    for (const tokenizer of [stories, smollm2]) {
      const lengths = Array.from({ length: tokenizer.size }, (_, id) => tokenizer.tokenText(id).length);
      const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
      expect(longest).toBeLessThanOrEqual(tokenizer.longestToken);
      expect(tokenizer.longestToken).toBeLessThan(2 * longest + 2);
    }
  });

  test("named in the configuration: bos, eos, sizes", () => {
    expect(stories).toMatchObject({ bosTokenId: 1, eosTokenIds: [2], size: 512 });
    expect(smollm2).toMatchObject({ bosTokenId: 1, eosTokenIds: [2], size: 49152 });
    expect(Array.from(stories.specialIds)).toEqual([0, 1, 2]);
    expect(smollm2.specialIds.size).toBe(17);
  });

  test.each([
    [{ eos_token: "b" }, [1]],
    [{ eos_token: { content: "c", lstrip: false } }, [2]],
    [{ eos_token: null }, []],
    [{}, []],
    [{ eos_token: "unheard of" }, []],
  ])("eos of %j", async (config, eosTokenIds) => {
    expect((await made(simple(["a", "b", "c"]), config)).eosTokenIds).toEqual(eosTokenIds);
  });

  test("named in special_tokens_map.json if nowhere else", async () => {
    const files = {
      "tokenizer.json": JSON.stringify(simple(["a", "b"])),
      "special_tokens_map.json": JSON.stringify({ bos_token: { content: "b" }, eos_token: "a" }),
      "tokenizer_config.json": JSON.stringify({ eos_token: "b" }),
    };
    expect(await loadTokenizer(memoryFolder(files))).toMatchObject({ bosTokenId: 1, eosTokenIds: [1] });
  });

  test("special_tokens_map.json is not asked for where the configuration lists its added tokens", async () => {
    const config = { added_tokens_decoder: { "0": { content: "a", special: true } }, eos_token: "a" };
    const files = {
      "tokenizer.json": JSON.stringify(simple(["a", "b"])),
      "special_tokens_map.json": JSON.stringify({ bos_token: "b" }),
      "tokenizer_config.json": JSON.stringify(config),
    };
    expect(await loadTokenizer(memoryFolder(files))).toMatchObject({ bosTokenId: undefined, eosTokenIds: [0] });
  });
});

describe("tokens that only the configuration knows", () => {
  test("are added, as transformers does", async () => {
    const config = { added_tokens_decoder: { "2": { content: "<end>", special: true } } };
    const tokenizer = await made(simple(["a", "b"]), config);
    expect(tokenizer.encode("a<end>b", { addSpecialTokens: false, parseSpecial: true })).toEqual([0, 2, 1]);
    expect(tokenizer.size).toBe(3);
  });
});

describe("clean_up_tokenization_spaces", () => {
  const pieces = ["a", " .", "unused", "'", "s", " n", "'t", " ,", " '", " "];
  const text = (config: object) => made(simple(pieces, { decoder: { type: "Fuse" } }), config);

  test("is done where the checkpoint says true, in streams too", async () => {
    const ids = [0, 1, 9, 3, 4, 5, 6, 0, 7, 0, 8, 9, 0, 9];
    const cleaned = await text({ clean_up_tokenization_spaces: true });
    expect(cleaned.decode(ids, { skipSpecial: true })).toBe("a.'sn'ta,a'a ");
    expect(streamed(cleaned, ids, true)).toBe("a.'sn'ta,a'a ");
    const stream = cleaned.stream({ skipSpecial: true });
    expect([0, 0, 9, 1, 0].map((id) => stream.push(id))).toEqual(["a", "a", "", " .", "a"]);
    for (const config of [{}, { clean_up_tokenization_spaces: false }]) {
      expect((await text(config)).decode(ids, { skipSpecial: true })).toBe("a . 's n'ta ,a ' a ");
    }
  });
});

describe("broken and hostile files", () => {
  test("no tokenizer.json is no tokenizer", async () => {
    expect(await loadTokenizer(memoryFolder({}))).toBeUndefined();
  });

  test.each([
    ["{", "tokenizer.json: is not valid JSON"],
    ["[]", "tokenizer.json: is a list, expected an object"],
    ["{}", "tokenizer.json: model: is missing, expected an object"],
    ['{"model":{"type":"BPE"}}', "tokenizer.json: model.vocab: is missing, expected an object"],
    [
      '{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}',
      'tokenizer.json: model.vocab["a"]: is the number -1, expected a whole number',
    ],
    [
      '{"model":{"type":"BPE","vocab":{"a":1.5},"merges":[]}}',
      'tokenizer.json: model.vocab["a"]: is the number 1.5, expected a whole number',
    ],
    ['{"model":{"type":"BPE","vocab":{"a":1e12},"merges":[]}}', "expected a whole number from 0 to 16777215"],
    ['{"model":{"type":"BPE","vocab":{"a":0}}}', "tokenizer.json: model.merges: is missing, expected a list"],
    [
      '{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}',
      'tokenizer.json: model.merges[0]: is the string "b", expected tokens of model.vocab',
    ],
    ['{"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}', "tokenizer.json: model.merges[0]: is the string"],
    [
      '{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"added_tokens":[{"id":1}]}',
      "tokenizer.json: added_tokens[0].content: is missing, expected a string",
    ],
    [
      '{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"decoder":{}}',
      "tokenizer.json: decoder.type: is missing, expected a string",
    ],
    [
      '{"model":{"type":"Unigram","unk_id":0,"vocab":[3]}}',
      "tokenizer.json: model.vocab[0]: is the number 3, expected a list",
    ],
  ])("%s is refused as broken", async (text, message) => {
    const loading = loadTokenizer(memoryFolder({ "tokenizer.json": text }));
    await expect(loading).rejects.toThrow(ModelFormatError);
    await expect(loading).rejects.toThrow(message);
  });

  test("bytes that are no UTF-8 are refused", async () => {
    const bytes = Uint8Array.of(0x7b, 0xff, 0x7d);
    const source = { name: "tokenizer.json", size: 3, read: async () => bytes, close: async () => {} };
    const folder = { location: "memory", open: async () => source };
    await expect(loadTokenizer(folder)).rejects.toThrow("tokenizer.json: is not UTF-8");
  });

  const regex = (pattern: string) => ({
    pre_tokenizer: { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
  });
  test.each([
    [
      { model: { type: "Unigram", unk_id: 0, vocab: [["a", 0]], byte_fallback: true } },
      "model: Unigram with byte_fallback is not supported",
    ],
    [{ model: { type: "WordLevel", vocab: { a: 0 } } }, 'model: type "WordLevel" is not supported'],
    [{ model: { type: "BPE", vocab: { a: 0 }, merges: [], dropout: 0.1 } }, "model.dropout: is 0.1"],
    [{ normalizer: { type: "Precompiled", precompiled_charsmap: "" } }, "normalizer: Precompiled is not supported"],
    [
      { normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Nmt" }] } },
      "normalizer.normalizers[1]: Nmt is not supported",
    ],
    [{ pre_tokenizer: { type: "UnicodeScripts" } }, "pre_tokenizer: UnicodeScripts is not supported"],
    [
      { pre_tokenizer: { type: "Split", pattern: { String: "a" }, behavior: "Sideways" } },
      'Split with behavior the string "Sideways"',
    ],
    [
      { pre_tokenizer: { type: "Split", pattern: { String: "a" }, behavior: "MergedWithNext", invert: true } },
      "and invert true is not supported",
    ],
    [{ decoder: { type: "CTC" } }, "decoder: CTC is not supported"],
    [{ post_processor: { type: "Mystery" } }, "post_processor: Mystery is not supported"],
    [regex("(a+)+$"), "repeats a group that itself repeats or chooses"],
    [regex("(?:a|aa)*b"), "repeats a group that itself repeats or chooses"],
    [regex("((a?){30})a{30}"), "repeats a group that itself repeats or chooses"],
    [regex("(\\s*[ab]){2,}"), "repeats a group that itself repeats or chooses"],
    [regex("a".repeat(20_001)), "at most 20000 are supported"],
  ])("%j is refused by name", async (parts, message) => {
    const loading = made(simple(["a"], parts));
    await expect(loading).rejects.toThrow(UnsupportedModelError);
    await expect(loading).rejects.toThrow(message);
  });

  test("patterns of real models are not", async () => {
    const patterns = [
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s+",
    ];
    for (const pattern of patterns) await expect(made(simple(["a"], regex(pattern)))).resolves.toBeDefined();
  });

  test("names that JavaScript's objects have are ordinary tokens", async () => {
    const file =
      '{"model":{"type":"BPE","vocab":{"__proto__":0,"constructor":1,"a":2},"merges":[],"ignore_merges":true}}';
    const tokenizer = await loadTokenizer(memoryFolder({ "tokenizer.json": file }));
    const ids = ["__proto__", "constructor", "a"].map((text) =>
      tokenizer?.encode(text, { addSpecialTokens: false, parseSpecial: true }),
    );
    expect(ids).toEqual([[0], [1], [2]]);
    expect(tokenizer?.decode([0, 1], { skipSpecial: false })).toBe("__proto__ constructor");
  });

  test("long runs take no long time", () => {
    const runs = [
      "l".repeat(80_000),
      "a".repeat(100_000),
      "Hello ".repeat(20_000),
      " ".repeat(100_000),
      "<".repeat(100_000),
      "🙂".repeat(20_000),
    ];
    for (const text of runs) {
      for (const [, tokenizer] of real) {
        const before = performance.now();
        tokenizer.encode(text, { addSpecialTokens: true, parseSpecial: true });
        expect(performance.now() - before, text.slice(0, 6)).toBeLessThan(1500); // about 100 ms; a busy machine is allowed for
      }
    }
  });
});
