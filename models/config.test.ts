import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { modelTypeOf } from "./config.ts";
import { FOREIGN_KEYS } from "./configRules.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import { readConfig } from "./families/registry.ts";

type Json = Readonly<Record<string, unknown>>;

/** A config as transformers 4 writes it. */
const OLD: Json = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
  hidden_size: 64,
  initializer_range: 0.02,
  intermediate_size: 72,
  max_position_embeddings: 128,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: 4,
  num_hidden_layers: 2,
  num_key_value_heads: 2,
  pad_token_id: 0,
  pretraining_tp: 2,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 500000.0,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  transformers_version: "4.46.0",
  use_cache: true,
  vocab_size: 256,
};

function without(config: Json, ...keys: readonly string[]): Json {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
}

/** The same config as transformers 5 writes it. */
const NEW: Json = {
  ...without(OLD, "rope_theta", "rope_scaling", "torch_dtype"),
  dtype: "bfloat16",
  rope_parameters: { rope_theta: 500000.0, rope_type: "default" },
};

const QWEN2: Json = {
  ...without(OLD, "attention_bias", "mlp_bias", "architectures"),
  model_type: "qwen2",
  num_hidden_layers: 3,
  sliding_window: 8,
};
const MISTRAL: Json = { ...without(OLD, "attention_bias", "mlp_bias", "architectures"), model_type: "mistral" };

describe("what a config says", () => {
  test("every field of a published form", () => {
    expect(readConfig(OLD)).toEqual({
      model_type: "llama",
      hidden_size: 64,
      intermediate_size: 72,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 16,
      vocab_size: 256,
      max_position_embeddings: 128,
      normEps: 1e-6,
      hidden_act: "silu",
      tie_word_embeddings: true,
      biases: { qkv: false, o: false, mlp: false },
      ropes: [{ type: "default", theta: 500000, rotary_dim: 16 }],
      layerRopes: [0, 0],
      embeddingMultiplier: 1,
      residualMultiplier: 1,
      attentionScale: 0.25,
      scaledByLayer: false,
      attentionSoftcap: null,
      logitsScale: 1,
      logitsSoftcap: null,
      qkNorm: false,
      parallelResidual: false,
      attentionClip: null,
      moe: null,
      latent: null,
      shortConv: null,
      deltaNet: null,
      windows: [null, null],
      bosTokenIds: [1],
      eosTokenIds: [2],
      padTokenIds: [0],
      quantization: null,
      dtype: "bfloat16",
    });
  });

  test("the spellings of transformers 4, of transformers 5, and both at once are one config", () => {
    expect(readConfig(NEW)).toEqual(readConfig(OLD));
    expect(readConfig({ ...OLD, ...NEW })).toEqual(readConfig(OLD));
  });

  test("what a llama config leaves out has the class's default", () => {
    const { hidden_size, intermediate_size, num_attention_heads, num_hidden_layers, vocab_size, model_type } = OLD;
    const config = readConfig({
      hidden_size,
      intermediate_size,
      num_attention_heads,
      num_hidden_layers,
      vocab_size,
      model_type,
    });
    expect(config).toMatchObject({
      num_key_value_heads: 4,
      max_position_embeddings: 2048,
      normEps: 1e-6,
      hidden_act: "silu",
      tie_word_embeddings: false,
      biases: { qkv: false, o: false, mlp: false },
      ropes: [{ type: "default", theta: 10_000, rotary_dim: 16 }],
      bosTokenIds: [1],
      eosTokenIds: [2],
      padTokenIds: [],
      dtype: null,
    });
  });

  test("biases, and a head_dim that is not hidden_size / num_attention_heads", () => {
    const config = readConfig({ ...OLD, attention_bias: true, mlp_bias: true, hidden_size: 50, head_dim: 32 });
    expect(config).toMatchObject({
      biases: { qkv: true, o: true, mlp: true },
      head_dim: 32,
      ropes: [{ rotary_dim: 32 }],
    });
  });

  test.each<[unknown, readonly number[]]>([
    [7, [7]],
    [
      [0, 2, 0],
      [0, 2],
    ],
    [null, []],
    [[], []],
    [-1, []],
  ])("eos_token_id %j is %j", (eos_token_id, ids) => {
    expect(readConfig({ ...OLD, eos_token_id }).eosTokenIds).toEqual(ids);
  });

  test("MLX quantization", () => {
    const quantization = { group_size: 32, bits: 4, mode: "affine", "model.embed_tokens": { group_size: 32, bits: 8 } };
    const config = readConfig({ ...OLD, quantization, quantization_config: quantization });
    expect(config.quantization).toMatchObject({ method: "mlx", names: ["model.embed_tokens"] });
  });

  test("keys without a part in the result are let pass, auto_map among them", () => {
    const extras = {
      auto_map: { AutoModel: "evil.py" },
      is_llama_config: true,
      rope_interleaved: false,
      use_cache: false,
      unheard_of: 3,
    };
    expect(readConfig({ ...OLD, ...extras })).toEqual(readConfig(OLD));
  });
});

describe("published forms of one small llama", () => {
  const golden: Json = {
    ...OLD,
    hidden_size: 48,
    intermediate_size: 80,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    head_dim: 16,
  };
  const goldenNew: Json = { ...NEW, ...without(golden, "rope_theta", "rope_scaling", "torch_dtype") };
  const scaling = { factor: 4.0, original_max_position_embeddings: 32, rope_theta: 10000.0 };
  const EIGHT = [1, 1.5, 2, 3, 5, 8, 12, 16];

  test.each<[string, Json, Json]>([
    [
      "multi-head attention, tied",
      { ...goldenNew, num_key_value_heads: 3 },
      { num_key_value_heads: 3, tie_word_embeddings: true },
    ],
    ["bf16, untied", { ...golden, tie_word_embeddings: false }, { tie_word_embeddings: false, dtype: "bfloat16" }],
    ["f16", { ...golden, torch_dtype: "float16" }, { dtype: "float16" }],
    ["biases", { ...goldenNew, attention_bias: true, mlp_bias: true }, { biases: { qkv: true, o: true, mlp: true } }],
    [
      "head_dim of its own",
      { ...goldenNew, num_attention_heads: 2, head_dim: 32 },
      { head_dim: 32, ropes: [{ rotary_dim: 32 }] },
    ],
    [
      "dynamic",
      { ...golden, rope_scaling: { factor: 2.0, type: "dynamic" } },
      { ropes: [{ type: "dynamic", max_position_embeddings: 128 }] },
    ],
    [
      "linear",
      { ...golden, rope_scaling: { factor: 4.0, type: "linear" } },
      { ropes: [{ type: "linear", factor: 4 }] },
    ],
    [
      "llama3",
      {
        ...golden,
        rope_scaling: {
          factor: 8.0,
          high_freq_factor: 4.0,
          low_freq_factor: 1.0,
          original_max_position_embeddings: 32,
          rope_type: "llama3",
        },
      },
      {
        ropes: [
          {
            type: "llama3",
            theta: 500000,
            factor: 8,
            low_freq_factor: 1,
            high_freq_factor: 4,
            original_max_position_embeddings: 32,
          },
        ],
      },
    ],
    [
      "yarn",
      { ...goldenNew, rope_parameters: { beta_fast: 1.0, beta_slow: 0.25, ...scaling, rope_type: "yarn" } },
      {
        ropes: [
          {
            type: "yarn",
            theta: 10000,
            beta_fast: 1,
            beta_slow: 0.25,
            truncate: true,
            attention_factor: 0.1 * Math.log(4) + 1,
          },
        ],
      },
    ],
    [
      "longrope",
      { ...goldenNew, rope_parameters: { ...scaling, long_factor: EIGHT, short_factor: EIGHT, rope_type: "longrope" } },
      {
        ropes: [{ type: "longrope", attention_factor: Math.sqrt(1 + Math.log(4) / Math.log(32)), long_factor: EIGHT }],
      },
    ],
  ])("%s", (_, raw, expected) => {
    expect(readConfig(raw)).toMatchObject(expected);
  });
});

describe("windows", () => {
  test.each<[string, Json, readonly (number | null)[]]>([
    ["llama has none", OLD, [null, null]],
    ["llama, written but off", { ...OLD, sliding_window: 8, use_sliding_window: false }, [null, null]],
    ["mistral with a window and no flag", { ...MISTRAL, sliding_window: 12 }, [12, 12]],
    ["mistral, null", { ...MISTRAL, sliding_window: null }, [null, null]],
    ["mistral, left out", MISTRAL, [4096, 4096]],
    ["qwen2, no flag", QWEN2, [null, null, null]],
    ["qwen2, flag false", { ...QWEN2, use_sliding_window: false, max_window_layers: 0 }, [null, null, null]],
    [
      "qwen2, flag false and none, as Qwen2-MoE's class writes it",
      { ...QWEN2, use_sliding_window: false, sliding_window: 0 },
      [null, null, null],
    ],
    ["qwen2, from layer 0", { ...QWEN2, use_sliding_window: true, max_window_layers: 0 }, [8, 8, 8]],
    ["qwen2, from layer 1", { ...QWEN2, use_sliding_window: true, max_window_layers: 1 }, [null, 8, 8]],
    ["qwen2, from layer 2", { ...QWEN2, use_sliding_window: true, max_window_layers: 2 }, [null, null, 8]],
    ["qwen2, from layer 28 by default", { ...QWEN2, use_sliding_window: true }, [null, null, null]],
    [
      "qwen2, window null",
      { ...QWEN2, use_sliding_window: true, max_window_layers: 0, sliding_window: null },
      [null, null, null],
    ],
    [
      "qwen3, layer_types before max_window_layers",
      {
        ...QWEN2,
        model_type: "qwen3",
        use_sliding_window: true,
        max_window_layers: 2,
        layer_types: ["sliding_attention", "full_attention", "full_attention"],
      },
      [8, null, null],
    ],
  ])("%s", (_, config, windows) => {
    expect(readConfig(config).windows).toEqual(windows);
  });

  test.each<[string, Json, string]>([
    ["llama with a window", { ...OLD, sliding_window: 8 }, "config.json: sliding_window is 8, supported: none"],
    [
      "llama with sliding layers",
      { ...OLD, layer_types: ["full_attention", "sliding_attention"] },
      "layer_types is a list of 2",
    ],
    [
      "mistral switched off",
      { ...MISTRAL, sliding_window: 8, use_sliding_window: false },
      "use_sliding_window is false",
    ],
    [
      "qwen2 sliding layers, flag off",
      { ...QWEN2, layer_types: Array(3).fill("sliding_attention") },
      "layer_types is a list of 3",
    ],
    [
      "a layer too few",
      { ...QWEN2, layer_types: ["full_attention"] },
      "layer_types is a list of 1, expected 3, one a layer",
    ],
    [
      "an unknown layer",
      { ...QWEN2, layer_types: ["full_attention", "conv", "moe"] },
      'layer_types has "conv", supported',
    ],
    ["window 0", { ...MISTRAL, sliding_window: 0 }, "sliding_window is 0, expected a positive integer"],
  ])("refused: %s", (_, config, words) => {
    expect(() => readConfig(config)).toThrow(words);
  });
});

describe("refused as broken, code CONFIG", () => {
  test.each<[string, unknown, string]>([
    ["num_attention_heads", 0, "num_attention_heads is 0, expected a positive integer"],
    ["num_attention_heads", -4, "num_attention_heads is -4"],
    ["num_attention_heads", 2.5, "num_attention_heads is 2.5"],
    ["num_attention_heads", "4", 'num_attention_heads is "4"'],
    ["num_attention_heads", 10, "hidden_size is 64, expected a multiple of num_attention_heads, 10, or a head_dim"],
    ["num_key_value_heads", 3, "num_key_value_heads is 3, expected a divisor of num_attention_heads, 4"],
    ["num_key_value_heads", 8, "num_key_value_heads is 8, expected a divisor of num_attention_heads, 4"],
    ["num_key_value_heads", 0, "num_key_value_heads is 0"],
    ["num_key_value_heads", [2, 2], "num_key_value_heads is a list of 2"],
    ["head_dim", 0, "head_dim is 0"],
    ["head_dim", 15, "head_dim is 15, expected an even number"],
    ["head_dim", 1e6, "head_dim is 1000000, expected at most 1024"],
    ["hidden_size", null, "hidden_size is null, expected a positive integer"],
    ["hidden_size", 4, "hidden_size / num_attention_heads is 1, expected an even number"],
    ["hidden_size", 1e9, "hidden_size is 1000000000, expected at most 131072"],
    ["intermediate_size", true, "intermediate_size is true"],
    ["num_hidden_layers", 1e6, "num_hidden_layers is 1000000, expected at most 1024"],
    ["vocab_size", 0, "vocab_size is 0, expected a positive integer"],
    ["vocab_size", 1e12, "vocab_size is 1000000000000, expected at most 4194304"],
    ["max_position_embeddings", 1e12, "max_position_embeddings is 1000000000000, expected at most 134217728"],
    ["max_position_embeddings", 0, "max_position_embeddings is 0"],
    ["rms_norm_eps", 0, "rms_norm_eps is 0, expected a number above 0"],
    ["rms_norm_eps", -1e-6, "rms_norm_eps is -0.000001"],
    ["rope_theta", 0, "rope_theta is 0"],
    ["tie_word_embeddings", 1, "tie_word_embeddings is 1, expected true or false"],
    ["tie_word_embeddings", "true", 'tie_word_embeddings is "true"'],
    ["hidden_act", 3, "hidden_act is 3, expected a string"],
    ["eos_token_id", 1.5, "eos_token_id is 1.5"],
    ["eos_token_id", -2, "eos_token_id is -2"],
    ["eos_token_id", "</s>", 'eos_token_id is "</s>"'],
    ["eos_token_id", [2, null], "eos_token_id is a list of 2"],
    ["eos_token_id", 2 ** 32, "eos_token_id is 4294967296"],
    ["dtype", "float16", 'torch_dtype is "bfloat16" and dtype is "float16", expected them to agree; remove one'],
    ["model_type", "", 'model_type is "", expected the name of a model family'],
    ["model_type", null, "model_type is null"],
    ["architectures", "LlamaForCausalLM", "architectures is"],
    ["quantization", "4bit", 'quantization is "4bit", expected an object'],
  ])("%s %j", (key, value, words) => {
    const read = () => readConfig({ ...OLD, [key]: value });
    expect(read).toThrow(ModelFormatError);
    expect(read).toThrow(`config.json: ${words}`);
    expect(read).toThrow(expect.objectContaining({ code: "CONFIG" }));
  });

  test.each([
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "model_type",
  ])("no %s", (key) => {
    expect(() => readConfig(without(OLD, key))).toThrow(`config.json: ${key} is missing`);
  });

  test.each([null, 3, "x", [], true])("a file that holds %j", (raw) => {
    expect(() => readConfig(raw)).toThrow("expected a JSON object");
    expect(() => modelTypeOf(raw)).toThrow(ModelFormatError);
  });

  test("a value is shown without what could steer a terminal", () => {
    const read = () => readConfig({ ...OLD, hidden_act: `\u001b[2J\u202e${"x".repeat(1000)}` });
    expect(read).toThrow(`hidden_act is "\\u001b[2J\\u202e${"x".repeat(55)}…"`);
  });
});

describe("refused as unsupported", () => {
  test.each<[string, unknown, string]>([
    ["model_type", "frobnicator", 'model_type is "frobnicator", expected one of: '],
    ["model_type", "constructor", 'model_type is "constructor"'],
    ["hidden_act", "wobble", 'hidden_act is "wobble", supported: silu, swish'],
    ["hidden_act", "toString", 'hidden_act is "toString"'],
    ["torch_dtype", "float8_e4m3fn", 'torch_dtype is "float8_e4m3fn", supported: float32, float16, bfloat16'],
    ["rope_scaling", { type: "ntk", factor: 2 }, 'rope_scaling.type is "ntk", supported: default'],
    ["quantization_config", { quant_method: "quip#", bits: 4 }, 'quantization_config.quant_method is "quip#"'],
    ["architectures", ["LlamaForSequenceClassification"], 'architectures has "LlamaForSequenceClassification"'],
    ["attn_logit_softcapping", 50, 'attn_logit_softcapping is 50, supported: for model_type "llama" none'],
    ["residual_multiplier", 0.22, 'residual_multiplier is 0.22, supported: for model_type "llama" 1, none'],
    ["num_local_experts", 8, "num_local_experts is 8"],
    ["rope_interleaved", true, "rope_interleaved is true"],
    ["no_rope_layers", [1, 0], "no_rope_layers is a list of 2"],
    ["partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5"],
  ])("%s %j", (key, value, words) => {
    const read = () => readConfig({ ...OLD, [key]: value });
    expect(read).toThrow(UnsupportedModelError);
    expect(read).toThrow(`config.json: ${words}`);
  });

  test("a bias that the family's weights don't have", () => {
    const read = () => readConfig({ ...MISTRAL, attention_bias: true });
    expect(read).toThrow('config.json: attention_bias is true, supported: for model_type "mistral" false');
  });

  const foreign = Object.entries(FOREIGN_KEYS).filter(([key]) => !["attention_bias", "mlp_bias"].includes(key)); // Llama's own
  test.each(foreign)("%s passes at %j and null, and nowhere else", (key, neutral) => {
    for (const value of [...neutral, null]) expect(readConfig({ ...OLD, [key]: value })).toEqual(readConfig(OLD));
    for (const value of [0.123, [7], {}, "on"])
      expect(() => readConfig({ ...OLD, [key]: value })).toThrow(UnsupportedModelError);
  });
});

/** Runs `read`; fails on anything thrown but the two errors a checkpoint may cause. */
function onlyTypedErrors(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    if (!(error instanceof ModelFormatError || error instanceof UnsupportedModelError)) throw error;
    expect(error.message).toMatch(/^config\.json: /);
  }
}

describe("any JSON", () => {
  const keys = [
    ...new Set([
      ...Object.keys(OLD),
      ...Object.keys(NEW),
      ...Object.keys(FOREIGN_KEYS),
      "quantization",
      "quantization_config",
    ]),
    ...[
      "head_dim",
      "sliding_window",
      "use_sliding_window",
      "max_window_layers",
      "layer_types",
      "no_rope_layers",
      "__proto__",
    ],
  ];
  const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, -0, 1, 2 ** 53, 1e308, NaN, Infinity, -1));
  const value = fc.oneof(fc.jsonValue(), number, fc.array(number, { maxLength: 4 }), fc.string());
  const ropeKeys = [
    "type",
    "rope_type",
    "rope_theta",
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
  ];
  const longKeys = [
    "truncate",
    "short_factor",
    "long_factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
  ];
  const type = fc.constantFrom("default", "linear", "dynamic", "llama3", "yarn", "longrope");
  const rope = fc
    .tuple(type, fc.dictionary(fc.constantFrom(...ropeKeys, ...longKeys), value))
    .map(([rope_type, rest]) => ({ ...rest, rope_type }));
  const model_type = fc.constantFrom("llama", "mistral", "qwen2", "qwen3");
  const base = fc.constantFrom(OLD, NEW);

  test("in any field gives a config or one of our errors", () => {
    const property = fc.property(base, model_type, fc.constantFrom(...keys), value, (config, family, key, changed) =>
      onlyTypedErrors(() => readConfig({ ...config, model_type: family, [key]: changed })),
    );
    fc.assert(property, { numRuns: 5000 });
  });

  test("in any field of a rope, a quantization or a whole file gives a config or one of our errors", () => {
    const ropes = fc.property(rope, (rope_scaling) => onlyTypedErrors(() => readConfig({ ...OLD, rope_scaling })));
    fc.assert(ropes, { numRuns: 3000 });
    const names = fc.constantFrom(
      "bits",
      "group_size",
      "mode",
      "quant_method",
      "lm_head",
      "model.layers.0.mlp.up_proj",
      "sym",
    );
    const quantizations = fc.dictionary(
      names,
      fc.oneof(value, fc.constantFrom(4, 32, "affine", { bits: 4, group_size: 64 })),
    );
    fc.assert(
      fc.property(quantizations, (quantization) => onlyTypedErrors(() => readConfig({ ...OLD, quantization }))),
      {
        numRuns: 3000,
      },
    );
    fc.assert(fc.property(fc.jsonValue(), (raw) => onlyTypedErrors(() => readConfig(raw))));
  });

  test("nested 100,000 deep is refused, not a stack overflow", () => {
    const deep: unknown = JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`);
    for (const key of ["rope_scaling", "eos_token_id", "quantization", "hidden_size", "layer_types"]) {
      onlyTypedErrors(() => readConfig({ ...OLD, [key]: deep }));
    }
  });
});
