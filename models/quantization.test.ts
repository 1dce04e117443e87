import { describe, expect, test } from "vitest";
import { fieldsOf } from "./configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import type { Quantization, StoredModule, Tensors } from "./formats/stored.ts";
import { normalizeQuantization } from "./quantization.ts";
import type { Dtype } from "./weights/tensorInfo.ts";

const read = (config: unknown) => normalizeQuantization(fieldsOf("config.json", config));

/** Tensors that are there by name alone: a dtype and a shape. */
function tensorsOf(all: Readonly<Record<string, readonly [dtype: Dtype, shape: readonly number[]]>>): Tensors {
  const get = (name: string) => {
    const found = all[name];
    if (found === undefined) return undefined;
    const source = { name: "memory", size: 0, read: () => Promise.reject(new Error(name)), close: async () => {} };
    return { name, dtype: found[0], shape: found[1], begin: 0, end: 0, source };
  };
  return {
    has: (name) => all[name] !== undefined,
    dtype: (name) => all[name]?.[0] ?? "",
    claim: get,
    claimIfThere: get,
    detail: () => undefined,
  };
}

/** How MLX's module of 64 rows and 128 columns would be stored by config.json, if its tensors have `bits` and `group`. */
function mlx(
  quantization: Quantization | null,
  module: string,
  bits: number,
  group: number,
): StoredModule | null | undefined {
  const shape = { module, rows: 64, cols: 128, expertRows: undefined, transposed: false, weight: `${module}.weight` };
  const tensors = tensorsOf({
    [`${module}.weight`]: ["U32", [64, (128 * bits) / 32]],
    [`${module}.scales`]: ["F16", [64, 128 / group]],
    [`${module}.biases`]: ["F16", [64, 128 / group]],
  });
  return quantization?.module(tensors, shape);
}

test("a config without the keys, or with null, is of plain weights", () => {
  expect(read({})).toBeNull();
  expect(read({ quantization: null, quantization_config: null })).toBeNull();
});

test.each([
  [2, 32],
  [3, 64],
  [4, 32],
  [4, 128],
  [5, 128],
  [6, 64],
  [8, 128],
])("%d bits in groups of %d, under either key and with or without a mode", (bits, group_size) => {
  for (const object of [
    { bits, group_size },
    { bits, group_size, mode: "affine" },
  ]) {
    for (const config of [{ quantization: object }, { quantization_config: object }, { compression_config: object }]) {
      const stored = mlx(read(config), "model.layers.0.mlp.up_proj", bits, group_size);
      expect(stored).toMatchObject({ layout: `affine${bits}`, group: group_size, scaleType: "f16" });
    }
  }
});

describe("widths of single modules", () => {
  const quantization = {
    group_size: 64,
    bits: 4,
    "model.embed_tokens": { group_size: 32, bits: 8, mode: "affine" },
    "model.layers.1.self_attn.v_proj": { group_size: 64, bits: 8 },
    "model.layers.1.mlp.up_proj": true,
    lm_head: false,
  };

  test("go before the width of all, by exact path", () => {
    const all = read({ quantization });
    expect(mlx(all, "model.embed_tokens", 8, 32)).toMatchObject({ layout: "affine8", group: 32 });
    expect(mlx(all, "model.layers.1.self_attn.v_proj", 8, 64)).toMatchObject({ layout: "affine8", group: 64 });
    expect(mlx(all, "model.layers.11.self_attn.v_proj", 4, 64)).toMatchObject({ layout: "affine4" });
    expect(mlx(all, "model.layers.1.mlp.up_proj", 4, 64)).toMatchObject({ layout: "affine4" });
    expect(mlx(all, "lm_head", 4, 64)).toBeNull();
    expect(mlx(all, "constructor", 4, 64)).toMatchObject({ layout: "affine4" });
    expect(() => mlx(all, "model.embed_tokens", 4, 64)).toThrow(
      "model.embed_tokens.weight: shape (64, 16), expected (64, 32)",
    );
  });

  test("are told, so that one under another prefix is found", () => {
    const names = ["model.embed_tokens", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj", "lm_head"];
    expect(read({ quantization })?.names).toEqual(names);
  });
});

describe("two keys", () => {
  const one = { bits: 4, group_size: 64, lm_head: false, "model.embed_tokens": { bits: 8, group_size: 64 } };

  test("that say the same, in any order and with the mode written out, are one", () => {
    const other = {
      "model.embed_tokens": { group_size: 64, bits: 8 },
      lm_head: false,
      mode: "affine",
      group_size: 64,
      bits: 4,
    };
    expect(read({ quantization: one, quantization_config: other })?.summary).toBe(read({ quantization: one })?.summary);
  });

  test.each([
    { ...one, bits: 8 },
    { ...one, lm_head: true },
    { bits: 4, group_size: 64 },
  ])("that differ are refused: %j", (other) => {
    const both = () => read({ quantization: one, quantization_config: other });
    expect(both).toThrow(ModelFormatError);
    expect(both).toThrow("quantization is an object and quantization_config is an object, expected them to agree");
  });
});

describe("refused", () => {
  test.each<[string, unknown]>([
    ["quip#", { quant_method: "quip#", bits: 4, group_size: 32 }],
    ["toString", { quant_method: "toString", bits: 4, group_size: 32 }],
  ])("quant_method %s", (method, quantization_config) => {
    expect(() => read({ quantization_config })).toThrow(UnsupportedModelError);
    expect(() => read({ quantization_config })).toThrow(
      `config.json: quantization_config.quant_method is "${method}", supported: `,
    );
  });

  const gptq = { quant_method: "gptq", bits: 4, group_size: 128 };
  const awq = { quant_method: "awq", bits: 4, group_size: 128, version: "gemm" };
  const fp8 = { quant_method: "fp8", weight_block_size: [128, 128] };
  const weights = { num_bits: 4, type: "int", strategy: "group", group_size: 32, symmetric: true };
  const group = { targets: ["Linear"], weights };
  const ct = { quant_method: "compressed-tensors", format: "pack-quantized", config_groups: { group_0: group } };
  const grouped = (over: object) => ({
    ...ct,
    config_groups: { group_0: { ...group, weights: { ...weights, ...over } } },
  });
  test.each<[object, string]>([
    [{ ...gptq, bits: 5 }, "bits is 5, supported: 4, 8"],
    [{ ...gptq, bits: 3 }, "bits is 3, supported: 4, 8"],
    [{ ...gptq, checkpoint_format: "marlin" }, 'checkpoint_format is "marlin", supported: "gptq", "gptq_v2"'],
    [{ ...gptq, dynamic: { "+:.*": { bits: 8 } } }, "dynamic is an object, supported: none"],
    [{ ...gptq, pack_dtype: "int8" }, 'pack_dtype is "int8"'],
    [{ ...awq, bits: 8 }, "bits is 8, supported: 4"],
    [{ ...awq, version: "gemv" }, 'version is "gemv", supported: "gemm"'],
    [{ ...fp8, fmt: "e5m2" }, 'fmt is "e5m2", supported: "e4m3"'],
    [{ ...fp8, weight_block_size: [100, 128] }, "weight_block_size is a list of 2, supported: two multiples of 8"],
    [{ ...ct, format: "marlin-24" }, 'format is "marlin-24", supported: pack-quantized'],
    [{ ...ct, sparsity_config: { format: "sparse-24-bitmask" } }, "sparsity_config is an object, supported: none"],
    [{ ...ct, kv_cache_scheme: { num_bits: 8 } }, "kv_cache_scheme is an object, supported: none"],
    [{ ...ct, config_groups: { group_0: { ...group, targets: ["re:("] } } }, 'targets has the pattern "("'],
    [{ ...ct, ignore: ["re:([a-z.]+)+!"] }, 'ignore has the pattern "([a-z.]+)+!", supported: up to 6 repetitions'],
    [grouped({ num_bits: 7 }), "config_groups.group_0.weights.num_bits is 7, supported: 2, 3, 4, 5, 6, 8"],
    [grouped({ strategy: "block" }), "weights.block_structure is missing"],
    [grouped({ type: "float" }), 'weights.type is "float", supported: "int" with format pack-quantized'],
    [grouped({ dynamic: true }), "weights.dynamic is true, supported: false"],
    [grouped({ actorder: "random" }), 'weights.actorder is "random", supported: "group", "weight"'],
    [{ quant_method: "bitsandbytes" }, "load_in_4bit is missing, supported: either load_in_4bit or load_in_8bit"],
    [
      { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "int4" },
      'bnb_4bit_quant_type is "int4"',
    ],
  ])("%j", (quantization_config, words) => {
    expect(() => read({ quantization_config })).toThrow(UnsupportedModelError);
    expect(() => read({ quantization_config })).toThrow(words);
  });

  test("a module that two groups name alike and store otherwise", () => {
    const two = { ...ct, config_groups: { a: group, b: { ...group, weights: { ...weights, num_bits: 8 } } } };
    const quantization = read({ quantization_config: two });
    expect(() => mlx(quantization, "model.layers.0.mlp.up_proj", 4, 64)).toThrow(
      "model.layers.0.mlp.up_proj is in a and in b, supported: one scheme a module",
    );
    expect(mlx(quantization, "model.embed_tokens", 4, 64)).toBeNull(); // no linear module
  });

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ["7 bits", { bits: 7, group_size: 64 }, "quantization.bits is 7, supported: 2, 3, 4, 5, 6, 8"],
    ["groups of 48", { bits: 4, group_size: 48 }, "quantization.group_size is 48, supported: 32, 64, 128"],
    ["mode", { bits: 4, group_size: 32, mode: "mxfp3" }, 'quantization.mode is "mxfp3", supported: "affine", "mxfp4"'],
    [
      "another format's option",
      { bits: 4, group_size: 32, sym: true },
      "quantization.sym is true, supported: bits, group_size, mode",
    ],
    [
      "a module's bits",
      { bits: 4, group_size: 64, "a.b": { bits: 7, group_size: 64 } },
      "quantization.a.b.bits is 7, supported: 2, 3, 4, 5, 6, 8",
    ],
    [
      "a module's option",
      { bits: 4, group_size: 64, "a.b": { bits: 4, group_size: 64, x: 1 } },
      "quantization.a.b.x is 1",
    ],
  ])("%s", (_, quantization, words) => {
    expect(() => read({ quantization })).toThrow(UnsupportedModelError);
    expect(() => read({ quantization })).toThrow(`config.json: ${words}`);
  });

  test.each<[string, unknown, string]>([
    ["no bits", { group_size: 64 }, "quantization.bits is missing, expected a positive integer"],
    ["bits as text", { bits: "4", group_size: 64 }, 'quantization.bits is "4"'],
    ["no group", { bits: 4 }, "quantization.group_size is missing"],
    ["groups of −1", { bits: 4, group_size: -1 }, "quantization.group_size is -1"],
    ["mode as a number", { bits: 4, group_size: 64, mode: 1 }, "quantization.mode is 1, expected a string"],
    ["method as a number", { quant_method: 4 }, "quantization.quant_method is 4, expected a string"],
    ["a module as a number", { bits: 4, group_size: 64, "a.b": 8 }, "quantization.a.b is 8, expected an object"],
    ["a module without bits", { bits: 4, group_size: 64, "a.b": {} }, "quantization.a.b.bits is missing"],
    ["a list", [], "quantization is a list of 0, expected an object"],
  ])("as broken: %s", (_, quantization, words) => {
    expect(() => read({ quantization })).toThrow(ModelFormatError);
    expect(() => read({ quantization })).toThrow(`config.json: ${words}`);
  });
});
