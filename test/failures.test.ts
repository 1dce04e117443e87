/** What goes wrong: refused before any GPU memory is taken, or ended cleanly with the engine ready for the next request. */
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { memoryFolder } from "../device/memoryFiles.ts";
import { Engine } from "../engine/engine.ts";
import { AbortError, ContextLengthError, InvalidRequestError, NonFiniteError } from "../engine/errors.ts";
import { ModelFormatError, UnsupportedModelError } from "../models/errors.ts";
import { countingDevice } from "./countingDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { floats, randomTokens, type TinyModel, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const { gpu, pipelines } = await sharedDevice();
const counted = countingDevice(gpu);
const { counts } = counted;
const device = { gpu: counted.gpu, pipelines };
const plain = tinyModel({ vocab: VOCAB, context: 512 });

/** The model with something changed. */
function broken(change: (model: TinyModel) => void, from: TinyModel = plain): TinyModel {
  const copy = { config: structuredClone(from.config), tensors: new Map(from.tensors) };
  change(copy);
  return copy;
}

describe("a broken checkpoint is refused before any buffer is made", () => {
  const affine = tinyModel({ layout: "affine4" });
  const q = "model.layers.1.self_attn.q_proj";
  const values = (count: number) => new Float32Array(count);
  const cases: [name: string, model: TinyModel, error: new (...args: never[]) => Error, message: RegExp][] = [
    [
      "a tensor is missing",
      broken(({ tensors }) => void tensors.delete(`${q}.weight`)),
      ModelFormatError,
      /layers\.1\.self_attn\.q_proj\.weight/,
    ],
    [
      "every tensor is missing",
      broken(({ tensors }) => tensors.clear()),
      ModelFormatError,
      /model\.embed_tokens\.weight/,
    ],
    [
      "a tensor is left over",
      broken(({ tensors }) => void tensors.set("model.layers.9.mlp.weight", floats(values(4), "F32", [4]))),
      ModelFormatError,
      /model\.layers\.9\.mlp\.weight/,
    ],
    [
      "a bias that the config does not know",
      broken(({ tensors }) => void tensors.set(`${q}.bias`, floats(values(64), "F32", [64]))),
      ModelFormatError,
      /q_proj\.bias/,
    ],
    [
      "a bias that the config promises",
      broken(({ config }) => void Object.assign(config, { attention_bias: true })),
      ModelFormatError,
      /q_proj\.bias/,
    ],
    [
      "a matrix is of another shape",
      broken(({ tensors }) => void tensors.set(`${q}.weight`, floats(values(64 * 32), "F32", [64, 32]))),
      ModelFormatError,
      /q_proj\.weight: shape \(64, 32\), expected \(64, 64\)/,
    ],
    [
      "a norm is of another shape",
      broken(({ tensors }) => void tensors.set("model.norm.weight", floats(values(63), "F32", [63]))),
      ModelFormatError,
      /model\.norm\.weight: shape \(63\), expected \(64\)/,
    ],
    [
      "a matrix is of whole numbers",
      broken(
        ({ tensors }) => void tensors.set(`${q}.weight`, { ...floats(values(64 * 64), "F32", [64, 64]), dtype: "I32" }),
      ),
      UnsupportedModelError,
      /q_proj\.weight: dtype I32/,
    ],
    [
      "another vocabulary",
      broken(({ config }) => void Object.assign(config, { vocab_size: VOCAB + 1 })),
      ModelFormatError,
      /embed_tokens\.weight: shape \(97, 64\), expected \(98, 64\)/,
    ],
    [
      "more layers",
      broken(({ config }) => void Object.assign(config, { num_hidden_layers: 3 })),
      ModelFormatError,
      /layers\.2\./,
    ],
    [
      "fewer layers",
      broken(({ config }) => void Object.assign(config, { num_hidden_layers: 1 })),
      ModelFormatError,
      /layers\.1\./,
    ],
    [
      "a tied head beside a head",
      broken(({ tensors, config }) => {
        config.tie_word_embeddings = true;
        tensors.set("lm_heads.weight", floats(values(4), "F32", [4]));
      }),
      ModelFormatError,
      /lm_heads\.weight/,
    ],
    [
      "KV heads that divide nothing",
      broken(({ config }) => void Object.assign(config, { num_key_value_heads: 3 })),
      ModelFormatError,
      /num_key_value_heads/,
    ],
    [
      "an unknown architecture",
      broken(({ config }) => void Object.assign(config, { model_type: "lamma" })),
      UnsupportedModelError,
      /model_type is "lamma", expected one of: .*llama/,
    ],
    [
      "an unknown quantization",
      broken(({ config }) => void Object.assign(config, { quantization_config: { quant_method: "aqlm", bits: 4 } })),
      UnsupportedModelError,
      /quant_method/,
    ],
    [
      "other bits than the words have",
      broken(({ config }) => void Object.assign(config, { quantization: { group_size: 32, bits: 8 } }), affine),
      ModelFormatError,
      /shape \(97, 8\), expected \(97, 16\)/,
    ],
    [
      "another group than the scales have",
      broken(({ config }) => void Object.assign(config, { quantization: { group_size: 64, bits: 4 } }), affine),
      ModelFormatError,
      /scales: shape/,
    ],
    [
      "scales without biases",
      broken(({ tensors }) => void tensors.delete(`${q}.biases`), affine),
      ModelFormatError,
      /q_proj\.biases/,
    ],
  ];
  test.each(cases)("%s", async (_, model, error, message) => {
    counts.reset();
    const loading = Engine.load(tinyFolder(model), { device });
    await expect(loading).rejects.toThrow(error);
    await expect(loading).rejects.toThrow(message);
    expect(counts.buffers).toBe(0);
  });

  test("no config, no weights, a cut file", async () => {
    counts.reset();
    const config = JSON.stringify(plain.config);
    const file = await bytesOf(plain);
    const load = (files: Readonly<Record<string, string | Uint8Array>>) => Engine.load(memoryFolder(files), { device });
    await expect(load({})).rejects.toThrow("has no config.json");
    await expect(load({ "config.json": config })).rejects.toMatchObject({ code: "NO_WEIGHTS" });
    await expect(load({ "config.json": "{", "model.safetensors": file })).rejects.toThrow(/config\.json/);
    await expect(load({ "config.json": config, "model.safetensors": file.subarray(0, -1) })).rejects.toThrow(
      ModelFormatError,
    );
    await expect(Engine.load("/no/such/folder", { device })).rejects.toMatchObject({ code: "SOURCE_MISSING" });
    expect(counts.buffers).toBe(0);
  });

  test("options that mean nothing", async () => {
    counts.reset();
    const load = (options: object) => Engine.load(tinyFolder(plain), { device, ...options });
    await expect(load({ precision: "int4" })).rejects.toThrow('precision: is "int4", expected auto or f32');
    await expect(load({ kvType: "q8" })).rejects.toThrow('kvType: is "q8", expected f16 or f32 or int8');
    const latents = fileURLToPath(new URL("./fixtures/families/deepseek_v3/", import.meta.url));
    await expect(Engine.load(latents, { device, kvType: "int8" })).rejects.toThrow(
      "--kv-type int8: layer 0 has latents, which one scale does not fit, expected f16 or f32",
    );
    await expect(load({ rowsPerStep: 0 })).rejects.toThrow("rowsPerStep: is 0, expected an integer from 1 to 64");
    await expect(load({ window: 17 })).rejects.toThrow("window: is 17, expected an integer from 1 to 16");
    await expect(load({ context: 0 })).rejects.toThrow("context: is 0");
    await expect(load({ context: 1e9 })).rejects.toThrow(/context|kv cache/);
    await expect(load({ kvMemory: 1 })).rejects.toThrow("kv cache");
    expect(counts.buffers).toBe(0);
  });

  test("a context beyond the positions that a model learned", async () => {
    const gpt2 = new URL("./fixtures/families/gpt2/", import.meta.url).pathname;
    const refused = Engine.load(gpt2, { device, context: 97 });
    await expect(refused).rejects.toThrow("context: is 97, expected at most 96, the positions that");
  });
});

async function bytesOf(model: TinyModel): Promise<Uint8Array> {
  const source = await tinyFolder(model).open("model.safetensors");
  if (source === undefined) throw new Error("no weights");
  return await source.read(0, source.size);
}

describe("loading that fails half-way leaves nothing behind", () => {
  test.each([0, 1, 5])("the source fails after %i reads of weights", async (reads) => {
    counts.reset();
    const folder = tinyFolder(plain);
    let left = reads;
    const failing: typeof folder = {
      ...folder,
      open: async (name) => {
        const source = await folder.open(name);
        if (source === undefined || name !== "model.safetensors") return source;
        const read: typeof source.read = async (begin, end, signal) => {
          // The header is read first, in pieces from the file's beginning.
          const weights = begin > 8 + 16_384;
          if (weights && left-- === 0) throw new Error("the disk is gone");
          return await source.read(begin, end, signal);
        };
        return { ...source, read };
      },
    };
    await expect(Engine.load(failing, { device })).rejects.toThrow("the disk is gone");
    expect(counts.live.size).toBe(0);
    expect(gpu.memory.buffers).toBe(0);
  });

  test("aborted by a signal", async () => {
    const controller = new AbortController();
    const onProgress = () => controller.abort(new Error("enough"));
    await expect(Engine.load(tinyFolder(plain), { device, signal: controller.signal, onProgress })).rejects.toThrow();
    expect(counts.live.size).toBe(0);
    await expect(Engine.load(tinyFolder(plain), { device, signal: AbortSignal.abort() })).rejects.toThrow();
  });
});

describe("an engine", () => {
  let engine: Engine;
  const request = { tokens: randomTokens(1, 40, VOCAB), maxTokens: 12, temperature: 0, ignoreEos: true };
  let fresh: number[];
  beforeAll(async () => {
    engine = await Engine.load(tinyFolder(plain), { device });
    fresh = (await answer(engine, request)).tokens;
  });
  afterEach(() => expectSums(engine));
  afterAll(async () => {
    await engine.close();
    expect(counts.live.size).toBe(0);
  });
  /** Nothing is held, and the next answer is as from a fresh engine. */
  async function expectUnharmed(): Promise<void> {
    expectSums(engine);
    expect((await answer(engine, request)).tokens).toEqual(fresh);
  }
  const long = { tokens: randomTokens(9, 400, VOCAB), temperature: 0, ignoreEos: true };

  test("a prompt beyond the context", async () => {
    const tokens = randomTokens(1, 512, VOCAB);
    const parts = engine.generate({ tokens });
    await expect(parts.next()).rejects.toThrow(ContextLengthError);
    await expect(answer(engine, { tokens: tokens.slice(1), temperature: 0 })).resolves.toMatchObject({
      last: { finishReason: "length", index: 0 },
    });
    await expect(answer(engine, { tokens: [VOCAB] })).rejects.toThrow(InvalidRequestError);
    await expect(engine.score({ tokens: [...tokens, 1] })).rejects.toThrow(ContextLengthError);
    expect((await engine.score({ tokens })).logprobs).toHaveLength(512);
    await expectUnharmed();
  });

  test("aborted before it began", async () => {
    const signal = AbortSignal.abort("no");
    await expect(answer(engine, { ...request, signal })).rejects.toThrow(AbortError);
    await expect(engine.score({ tokens: request.tokens, signal })).rejects.toThrow(AbortError);
    await expectUnharmed();
  });

  test.each([0, 1, 4, 12])("aborted %i ms into a long prompt, while another goes on", async (milliseconds) => {
    const controller = new AbortController();
    const other = answer(engine, request);
    const aborted = answer(engine, { ...long, signal: controller.signal });
    setTimeout(() => controller.abort(), milliseconds);
    await expect(aborted).rejects.toThrow("generate: aborted by its signal");
    expect((await other).tokens).toEqual(fresh);
    await expectUnharmed();
  });

  test("aborted while it decodes: the parts before stay, and twice is once", async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const reading = (async () => {
      for await (const { token } of engine.generate({ ...request, maxTokens: 200, signal: controller.signal })) {
        seen.push(token);
        if (seen.length === 3) controller.abort("enough");
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: "ABORTED", cause: "enough" });
    controller.abort();
    expect(seen.slice(0, 3)).toEqual(fresh.slice(0, 3));
    await expectUnharmed();
  });

  test("aborted while it waits: the one that runs is unharmed", async () => {
    await withEngine(tinyFolder(plain), { device, rowsPerStep: 1 }, async (narrow) => {
      const controller = new AbortController();
      const running = answer(narrow, { ...request, maxTokens: 6 });
      const waiting = answer(narrow, { ...request, signal: controller.signal });
      const scoring = narrow.score({ tokens: request.tokens, signal: controller.signal });
      await new Promise((resolve) => setTimeout(resolve, 5));
      controller.abort();
      await expect(waiting).rejects.toThrow(AbortError);
      await expect(scoring).rejects.toThrow(AbortError);
      expect((await running).tokens).toEqual(fresh.slice(0, 6));
      expect(narrow.stats().pages.used).toBe(0);
    });
  });

  test("a signal after the end does nothing, and keeps nothing", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    Object.assign(signal, {
      addEventListener: (...args: Parameters<typeof add>) => [listeners++, add(...args)],
      removeEventListener: (...args: Parameters<typeof remove>) => [listeners--, remove(...args)],
    });
    await answer(engine, { ...request, signal });
    await engine.score({ tokens: request.tokens, signal });
    expect(listeners).toBe(0);
    controller.abort();
    await expectUnharmed();
  });

  test("a reader that leaves the loop", async () => {
    for (const at of [0, 3]) {
      for await (const { index } of engine.generate({ ...request, maxTokens: 300 })) if (index === at) break;
      await expectUnharmed();
    }
    const never = engine.generate(request); // never read, so never begun
    await never.return();
    await expectUnharmed();
  });

  test("a reader that is slow loses nothing", async () => {
    const seen: number[] = [];
    for await (const { token } of engine.generate(request)) {
      await new Promise((resolve) => setTimeout(resolve, 3));
      seen.push(token);
    }
    expect(seen).toEqual(fresh);
  });

  test("a request at any moment around the end of the last one is served", { timeout: 20_000 }, async () => {
    for (let turns = 0; turns < 24; turns++) {
      let late: Promise<{ tokens: number[] }> | undefined;
      const comeLate = async () => {
        for (let i = 0; i < turns; i++) await undefined;
        return await answer(engine, { ...request, maxTokens: 1 });
      };
      const onLogits = (position: number) => {
        if (position === 1) late = comeLate();
      };
      await engine.score({ tokens: [1, 2], onLogits });
      expect((await late)?.tokens).toEqual(fresh.slice(0, 1));
    }
  });

  test("a callback that throws fails its own score only", async () => {
    const onLogits = () => {
      throw new Error("the reader's own");
    };
    const other = answer(engine, request);
    await expect(engine.score({ tokens: request.tokens, onLogits })).rejects.toThrow("the reader's own");
    expect((await other).tokens).toEqual(fresh);
    await expectUnharmed();
  });

  test("a score of one token has nothing to say", async () => {
    const { logprobs, top, tokens, perplexity } = await engine.score({ tokens: [5], top: 2 });
    expect({ logprobs, top, tokens }).toEqual({ logprobs: [null], top: [null], tokens: [5] });
    expect(perplexity).toBeNull();
  });

  test("closed while it answers: every request ends, and another engine on the device goes on", async () => {
    const second = await Engine.load(tinyFolder(plain), { device });
    const [one, two] = [answer(second, { ...long, maxTokens: 50 }), second.score({ tokens: long.tokens })];
    const ended = Promise.allSettled([one, two]);
    const other = answer(engine, request);
    await new Promise((resolve) => setTimeout(resolve, 10));
    await second.close();
    await second.close();
    for (const result of await ended) {
      expect(result).toMatchObject({ status: "rejected", reason: { code: "ABORTED" } });
    }
    await expect(answer(second, request)).rejects.toThrow("engine: is closed");
    await expect(second.score({ tokens: [1] })).rejects.toThrow("engine: is closed");
    expect((await other).tokens).toEqual(fresh);
    await expectUnharmed();
  });
});

describe("weights that are not numbers", () => {
  /** The model with one number of a tensor replaced. */
  const planted = (name: string, at: number, value: number): TinyModel =>
    broken(({ tensors }) => {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw new RangeError(`${name}: no such tensor`);
      const values = new Float32Array(tensor.bytes.slice().buffer);
      values[at] = value;
      tensors.set(name, floats(values, "F32", tensor.shape));
    });
  const layer = "model.layers.0";
  const places = [
    `${layer}.input_layernorm.weight`,
    ...["q", "k", "v", "o"].map((name) => `${layer}.self_attn.${name}_proj.weight`),
    ...["gate", "up", "down"].map((name) => `${layer}.mlp.${name}_proj.weight`),
    "model.norm.weight",
    "lm_head.weight",
  ];
  const FULL = process.env.INGLE_SUITE === "full";
  const values = FULL ? [Number.NaN, Number.POSITIVE_INFINITY] : [Number.NaN];
  const kvTypes = FULL ? (["f16", "f32", "int8"] as const) : (["f16"] as const);
  const plantings = places.flatMap((name) => values.map((value) => ({ name, value })));
  test.each(plantings)("$value in $name", async ({ name, value }) => {
    for (const kvType of kvTypes) {
      await withEngine(tinyFolder(planted(name, 37, value)), { device, kvType }, async (engine) => {
        const tokens = randomTokens(1, 20, VOCAB);
        await expect(answer(engine, { tokens, temperature: 0 })).rejects.toThrow(NonFiniteError);
        await expect(answer(engine, { tokens, temperature: 1 })).rejects.toThrow(NonFiniteError);
        await expect(engine.score({ tokens })).rejects.toThrow(NonFiniteError);
        const { pages, running } = engine.stats();
        expect([pages.used, running]).toEqual([0, 0]);
      });
    }
  });

  test("one row of the embedding: other tokens are unharmed, before, beside and after", async () => {
    const BAD = 13;
    const model = planted("model.embed_tokens.weight", BAD * 64, Number.NaN);
    const request = { tokens: [1, 2, 3], maxTokens: 5, temperature: 0, ignoreEos: true };
    const want = await withEngine(tinyFolder(plain), { device }, (engine) => answer(engine, request));
    expect(want.tokens).not.toContain(BAD);
    await withEngine(tinyFolder(model), { device }, async (engine) => {
      for (const place of [39, 20]) {
        const bad = answer(engine, { tokens: randomTokens(1, 40, VOCAB).fill(BAD, place, place + 1) });
        const beside = answer(engine, request);
        await expect(bad).rejects.toThrow(/logits after 40 tokens are not finite/);
        expect((await beside).tokens).toEqual(want.tokens);
      }
      expect((await answer(engine, request)).tokens).toEqual(want.tokens);
      // Its pages were given back with NaN in them: whoever takes them next must not see it.
      for (const seed of [1, 2, 3, 4]) {
        const tokens = randomTokens(seed, 45, VOCAB).map((id) => (id === BAD ? 1 : id));
        expect((await engine.score({ tokens })).logprobs.slice(1).every((value) => Number.isFinite(value))).toBe(true);
      }
    });
  });
});
