import { describe, expect, test } from "vitest";
import { fieldsOf } from "./configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import { normalizeQuantization, quantizationOf, unmatchedModules } from "./quantization.ts";

const read = (config: unknown) => normalizeQuantization(fieldsOf("config.json", config));
const affine = (bits: number, group_size: number) => ({ format: "affine", bits, group_size });

test("a config without the keys, or with null, is of plain weights", () => {
  expect(read({})).toBeNull();
  expect(read({ quantization: null, quantization_config: null })).toBeNull();
  expect(quantizationOf(null, "lm_head")).toBeNull();
  expect(unmatchedModules(null, [])).toEqual([]);
});

test.each([
  [4, 32],
  [4, 64],
  [4, 128],
  [8, 32],
  [8, 64],
  [8, 128],
])("%d bits in groups of %d, under either key and with or without a mode", (bits, group_size) => {
  for (const object of [
    { bits, group_size },
    { bits, group_size, mode: "affine" },
  ]) {
    for (const config of [{ quantization: object }, { quantization_config: object }]) {
      expect(quantizationOf(read(config), "model.layers.0.mlp.up_proj")).toEqual(affine(bits, group_size));
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
    const read4 = read({ quantization });
    expect(quantizationOf(read4, "model.embed_tokens")).toEqual(affine(8, 32));
    expect(quantizationOf(read4, "model.layers.1.self_attn.v_proj")).toEqual(affine(8, 64));
    expect(quantizationOf(read4, "model.layers.11.self_attn.v_proj")).toEqual(affine(4, 64));
    expect(quantizationOf(read4, "model.layers.1.mlp.up_proj")).toEqual(affine(4, 64));
    expect(quantizationOf(read4, "lm_head")).toBeNull();
    expect(quantizationOf(read4, "constructor")).toEqual(affine(4, 64));
  });

  test("under a prefix that no module has are told", () => {
    const modules = ["model.embed_tokens", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj", "lm_head"];
    expect(unmatchedModules(read({ quantization }), modules)).toEqual([]);
    const other = { bits: 4, group_size: 64, "language_model.model.embed_tokens": { bits: 8, group_size: 64 } };
    expect(unmatchedModules(read({ quantization: other }), modules)).toEqual(["language_model.model.embed_tokens"]);
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
    expect(read({ quantization: one, quantization_config: other })).toEqual(read({ quantization: one }));
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
    ["gptq", { quant_method: "gptq", bits: 4, group_size: 128, desc_act: false, sym: true }],
    ["awq", { quant_method: "awq", bits: 4, group_size: 128, version: "gemm", zero_point: true }],
    ["bitsandbytes", { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" }],
    ["compressed-tensors", { quant_method: "compressed-tensors", format: "float-quantized" }],
    ["fp8", { quant_method: "fp8", fmt: "e4m3", weight_block_size: [128, 128] }],
    ["mxfp4", { quant_method: "mxfp4" }],
    ["quip#", { quant_method: "quip#", bits: 4, group_size: 32 }],
    ["toString", { quant_method: "toString", bits: 4, group_size: 32 }],
  ])("quant_method %s", (method, quantization_config) => {
    expect(() => read({ quantization_config })).toThrow(UnsupportedModelError);
    expect(() => read({ quantization_config })).toThrow(
      `config.json: quantization_config.quant_method is "${method}", supported: `,
    );
  });

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ["5 bits", { bits: 5, group_size: 64 }, "quantization.bits is 5, supported: 4, 8"],
    ["groups of 48", { bits: 4, group_size: 48 }, "quantization.group_size is 48, supported: 32, 64, 128"],
    ["mode", { bits: 4, group_size: 32, mode: "mxfp4" }, 'quantization.mode is "mxfp4", supported: "affine"'],
    [
      "another format's option",
      { bits: 4, group_size: 32, sym: true },
      "quantization.sym is true, supported: bits, group_size, mode",
    ],
    [
      "a module's bits",
      { bits: 4, group_size: 64, "a.b": { bits: 3, group_size: 64 } },
      "quantization.a.b.bits is 3, supported: 4, 8",
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
