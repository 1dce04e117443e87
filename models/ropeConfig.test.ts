import { describe, expect, test } from "vitest";
import { fieldsOf } from "./configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import { readRope } from "./ropeConfig.ts";

const read = (config: unknown, partialRotary = false) =>
  readRope(fieldsOf("config.json", config), {
    head_dim: 16,
    max_position_embeddings: 128,
    rules: { theta: 10_000, partial: partialRotary ? 1 : null },
  });

const scaled = (rope_scaling: unknown) => ({ rope_theta: 10_000, rope_scaling });
const LLAMA3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
const EIGHT = [1, 1, 1, 1, 1, 1, 1, 1];

test("no rope key at all is a plain rope with the class's theta", () => {
  expect(read({})).toEqual({ type: "default", theta: 10_000, rotary_dim: 16 });
  expect(read({ rope_scaling: null, rope_parameters: {} })).toEqual(read({}));
});

test.each([
  ["linear", { factor: 4 }],
  ["dynamic", { factor: 2 }],
  ["llama3", { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 }],
  ["yarn", { factor: 4, original_max_position_embeddings: 32, beta_fast: 16 }],
  ["longrope", { factor: 4, original_max_position_embeddings: 32, short_factor: EIGHT, long_factor: EIGHT }],
])("%s: both spellings and both of them together are one rope", (rope_type, keys) => {
  const old = { rope_theta: 5e5, rope_scaling: { type: rope_type, ...keys } };
  const renamed = { rope_theta: 5e5, rope_scaling: { rope_type, ...keys } };
  const current = { rope_parameters: { rope_type, rope_theta: 5e5, ...keys } };
  expect(read(old)).toEqual(read(current));
  expect(read(renamed)).toEqual(read(current));
  expect(read({ ...old, ...current })).toEqual(read(current));
  expect(read({ ...current, rope_scaling: null })).toEqual(read(current));
});

test("su is longrope's first name", () => {
  expect(read(scaled({ type: "su", short_factor: EIGHT, long_factor: EIGHT })).type).toBe("longrope");
});

describe("refused as broken", () => {
  test.each<[string, unknown, string]>([
    ["theta 0", { rope_theta: 0 }, "rope_theta is 0, expected a number above 1"],
    ["theta negative", { rope_theta: -1e4 }, "rope_theta is -10000"],
    ["theta NaN", { rope_theta: NaN }, "rope_theta is NaN"],
    ["theta infinite", { rope_parameters: { rope_theta: Infinity } }, "rope_parameters.rope_theta is Infinity"],
    ["theta a string", { rope_theta: "1e4" }, 'rope_theta is "1e4"'],
    ["scaling a string", { rope_scaling: "linear" }, 'rope_scaling is "linear", expected an object'],
    ["scaling a list", { rope_scaling: [] }, "rope_scaling is a list of 0, expected an object"],
    ["type a number", scaled({ type: 3 }), "rope_scaling.type is 3, expected a string"],
    ["no factor", scaled({ type: "linear" }), "rope_scaling.factor is missing, expected a number of at least 1"],
    ["factor 0", scaled({ type: "dynamic", factor: 0 }), "rope_scaling.factor is 0"],
    ["yarn without a factor", scaled({ type: "yarn" }), "rope_scaling.factor is missing"],
    [
      "yarn betas",
      scaled({ type: "yarn", factor: 2, beta_fast: 1, beta_slow: 2 }),
      "beta_fast is 1, expected at least beta_slow, 2",
    ],
    ["llama3 bands", scaled({ ...LLAMA3, high_freq_factor: 1 }), "high_freq_factor is 1, expected a number above 1"],
    ["original 0", scaled({ ...LLAMA3, original_max_position_embeddings: 0 }), "original_max_position_embeddings is 0"],
    [
      "original absurd",
      scaled({ ...LLAMA3, original_max_position_embeddings: 1e12 }),
      "is 1000000000000, expected at most 134217728",
    ],
    [
      "longrope short",
      scaled({ type: "longrope", short_factor: [1], long_factor: EIGHT }),
      "short_factor is a list of 1, expected 8",
    ],
    [
      "longrope 0",
      scaled({ type: "longrope", short_factor: EIGHT, long_factor: [0, ...EIGHT.slice(1)] }),
      "long_factor is a list of 8",
    ],
    [
      "theta twice",
      { rope_theta: 1e4, rope_parameters: { rope_theta: 1e5 } },
      "rope_parameters.rope_theta is 100000, expected the same as rope_theta, 10000",
    ],
    [
      "type twice",
      scaled({ type: "linear", rope_type: "dynamic", factor: 2 }),
      'rope_scaling.type is "linear" and rope_scaling.rope_type is "dynamic"',
    ],
    [
      "scaling twice",
      { rope_scaling: { type: "linear", factor: 2 }, rope_parameters: { rope_type: "linear", factor: 4 } },
      "rope_scaling is an object and rope_parameters is an object, expected them to agree",
    ],
  ])("%s", (_, config, words) => {
    expect(() => read(config)).toThrow(ModelFormatError);
    expect(() => read(config)).toThrow(`config.json: `);
    expect(() => read(config)).toThrow(words);
  });

  test("a partial rotation of no or an odd number of components", () => {
    expect(() => read({ partial_rotary_factor: 0 }, true)).toThrow("partial_rotary_factor is 0");
    expect(() => read({ partial_rotary_factor: 0.2 }, true)).toThrow(
      "an even number of rotated components, not 3 of head_dim 16",
    );
  });
});

describe("refused as unsupported", () => {
  test.each<[string, unknown, string]>([
    [
      "type",
      scaled({ type: "mrope", mrope_section: [1] }),
      'rope_scaling.type is "mrope", supported: default, linear, dynamic',
    ],
    ["prototype's name", scaled({ rope_type: "constructor" }), 'rope_scaling.rope_type is "constructor"'],
    ["factor without a type", scaled({ factor: 2 }), 'rope_scaling.factor has no meaning for rope type "default"'],
    [
      "another type's key",
      scaled({ type: "linear", factor: 2, low_freq_factor: 1 }),
      "rope_scaling.low_freq_factor has no meaning",
    ],
    [
      "unknown key",
      { rope_parameters: { full_attention: { rope_type: "default" } } },
      "rope_parameters.full_attention has no meaning",
    ],
    ["partial rotation", { partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5, supported: 1"],
  ])("%s", (_, config, words) => {
    expect(() => read(config)).toThrow(UnsupportedModelError);
    expect(() => read(config)).toThrow(words);
  });
});
