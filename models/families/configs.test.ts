/** How families read config.json: defaults as transformers' classes have them, both spellings, and what each refuses. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readConfig } from "./registry.ts";

type Json = Readonly<Record<string, unknown>>;

/** What a config class of transformers makes of a config with no more than sizes (test/oracles/configDefaults.py). */
interface Defaults {
  readonly model_type: string;
  readonly sizes: Json;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly eps: number;
  readonly activation: string;
  readonly tied: boolean;
  readonly bos: readonly number[];
  readonly eos: readonly number[];
  /** Of layers without and with a window. */
  readonly ropes: readonly [Rope, Rope] | null;
  readonly windows: readonly (number | null)[];
  readonly roped: readonly boolean[];
}
interface Rope {
  readonly theta: number;
  readonly partial: number;
}

const FIXTURE = new URL("../../test/fixtures/configs/defaults.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(FIXTURE, "utf8")) as { readonly cases: readonly Defaults[] };

describe("what is not written is as in transformers", () => {
  test.each(cases)("$model_type", (want) => {
    const config = readConfig({ model_type: want.model_type, ...want.sizes });
    expect(config).toMatchObject({
      num_key_value_heads: want.num_key_value_heads,
      head_dim: want.head_dim,
      max_position_embeddings: want.max_position_embeddings,
      normEps: want.eps,
      hidden_act: want.activation === "gelu_new" ? "gelu_pytorch_tanh" : want.activation, // one function
      tie_word_embeddings: want.tied,
      bosTokenIds: want.bos,
      eosTokenIds: want.eos,
      windows: want.windows,
    });
    const ropes = config.layerRopes.map((rope) => (rope === null ? null : config.ropes[rope]));
    const wanted = want.windows.map((window, layer) => {
      const rope = want.ropes?.[window === null ? 0 : 1];
      const roped = want.model_type === "exaone4" ? window !== null : want.roped[layer] === true; // said in its modeling code
      if (!roped || rope === undefined) return null;
      return { type: "default", theta: rope.theta, rotary_dim: rope.partial * want.head_dim };
    });
    expect(ropes).toEqual(wanted);
  });
});

/** Small sizes, for families that want them all. */
const SMALL = {
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 16,
  vocab_size: 97,
};
const GPT2 = { model_type: "gpt2", n_embd: 64, n_layer: 2, n_head: 4, vocab_size: 97 };
const of = (model_type: string, keys: Json = {}): Json => ({ model_type, ...SMALL, ...keys });

describe("fields of a family's own", () => {
  test.each<[string, Json, Json]>([
    ["qwen2 has biases of q, k and v", of("qwen2"), { biases: { qkv: true, o: false, mlp: false } }],
    ["glm4 has no bias of o", of("glm4"), { biases: { qkv: true, o: false, mlp: false } }],
    ["ernie4_5's one flag", of("ernie4_5", { use_bias: true }), { biases: { qkv: true, o: true, mlp: true } }],
    ["starcoder2 has them all by default", of("starcoder2"), { biases: { qkv: true, o: true, mlp: true } }],
    ["starcoder2 without", of("starcoder2", { use_bias: false }), { biases: { qkv: false, o: false, mlp: false } }],
    ["stablelm's q, k and v", of("stablelm", { use_qkv_bias: true }), { biases: { qkv: true, o: false, mlp: false } }],
    [
      "gpt_neox keeps its MLP's",
      of("gpt_neox", { attention_bias: false }),
      { biases: { qkv: false, o: false, mlp: true } },
    ],
    [
      "granite's multipliers",
      of("granite", {
        embedding_multiplier: 12,
        residual_multiplier: 0.22,
        attention_multiplier: 0.5,
        logits_scaling: 8,
      }),
      { embeddingMultiplier: 12, residualMultiplier: 0.22, attentionScale: 0.5, logitsScale: 0.125 },
    ],
    ["granite's scores are not scaled by default", of("granite"), { attentionScale: 1 }],
    ["cohere's logit_scale", of("cohere"), { logitsScale: 0.0625, qkNorm: false }],
    [
      "cohere's norms of q and k",
      of("cohere", { use_qk_norm: true, logit_scale: 1 }),
      { logitsScale: 1, qkNorm: true },
    ],
    ["gemma's embedding", of("gemma"), { embeddingMultiplier: 8, attentionScale: 0.25 }],
    ["gemma's first uploads say gelu", of("gemma", { hidden_act: "gelu" }), { hidden_act: "gelu_pytorch_tanh" }],
    [
      "gemma2's caps",
      of("gemma2"),
      { attentionSoftcap: 50, logitsSoftcap: 30, attentionScale: 0.0625, embeddingMultiplier: 8 },
    ],
    [
      "gemma2 without caps",
      of("gemma2", { attn_logit_softcapping: null, final_logit_softcapping: null, query_pre_attn_scalar: 144 }),
      { attentionSoftcap: null, logitsSoftcap: null, attentionScale: 1 / 12 },
    ],
    ["gemma3_text has no caps", of("gemma3_text"), { attentionSoftcap: null, logitsSoftcap: null }],
    [
      "gemma3_text by a pattern",
      of("gemma3_text", { sliding_window: 8, sliding_window_pattern: 2 }),
      { windows: [8, null, 8, null], layerRopes: [1, 0, 1, 0] },
    ],
    [
      "gemma3's text model, with what stands beside it",
      { model_type: "gemma3", text_config: { ...SMALL, model_type: "gemma3_text" }, eos_token_id: [1, 106] },
      { model_type: "gemma3", hidden_size: 64, eosTokenIds: [1, 106] },
    ],
    [
      "lfm2 attends everywhere unless it says where",
      of("lfm2"),
      { shortConv: { layers: Array(4).fill(false), taps: 3, bias: false }, tie_word_embeddings: true },
    ],
    [
      "lfm2 by layer types",
      of("lfm2", { layer_types: ["conv", "full_attention", "conv", "conv"], conv_bias: true, conv_L_cache: 4 }),
      { shortConv: { layers: [true, false, true, true], taps: 4, bias: true }, windows: Array(4).fill(null) },
    ],
    [
      "lfm2's first uploads name layers, width and theta otherwise",
      of("lfm2", {
        full_attn_idxs: [1],
        intermediate_size: undefined,
        block_ff_dim: 12_288,
        block_auto_adjust_ff_dim: true,
        theta: 1e6,
        rope_theta: 1e6,
        tie_embedding: false,
      }),
      {
        shortConv: { layers: [true, false, true, true], taps: 3, bias: false },
        intermediate_size: 8192,
        tie_word_embeddings: false,
      },
    ],
    [
      "lfm2's width is adjusted unless it says no",
      of("lfm2", { intermediate_size: 100, block_multiple_of: 16, block_ffn_dim_multiplier: 1.5 }),
      { intermediate_size: 112 },
    ],
    [
      "lfm2's width as it stands",
      of("lfm2", { intermediate_size: 100, block_auto_adjust_ff_dim: false }),
      { intermediate_size: 100 },
    ],
    [
      "qwen3_next attends in every fourth layer",
      of("qwen3_next"),
      {
        deltaNet: {
          layers: [true, true, true, false],
          taps: 4,
          keyHeads: 16,
          valueHeads: 32,
          keyDim: 128,
          valueDim: 128,
        },
        moe: {
          routing: { experts: 512, top_k: 10, renormalize: { least: 1e-30 } },
          shared: { inner: 512, gated: true },
        },
        ropes: [{ rotary_dim: 4 }],
      },
    ],
    [
      "qwen3_next by layer types",
      of("qwen3_next", { layer_types: ["full_attention", "linear_attention", "full_attention", "linear_attention"] }),
      { deltaNet: { layers: [false, true, false, true] } },
    ],
    ["phi's norms of q and k", of("phi", { qk_layernorm: true }), { qkNorm: true }],
    [
      "deepseek_v2's defaults",
      of("deepseek_v2", { num_experts_per_tok: 6, n_group: 8, topk_group: 3 }),
      {
        head_dim: 64,
        bosTokenIds: [1],
        latent: {
          q_lora_rank: 1536,
          kv_lora_rank: 512,
          qk_nope_head_dim: 128,
          qk_rope_head_dim: 64,
          v_head_dim: 128,
          interleaved: true,
        },
        attentionScale: 1 / Math.sqrt(192),
        moe: {
          routing: { experts: 64, top_k: 6, score: "softmax", renormalize: null, scaling: 1, groups: null },
          inner: 1407,
          shared: { inner: 2814, gated: false },
        },
      },
    ],
    [
      "deepseek_v2 by groups, and without latents of queries",
      of("deepseek_v2", {
        num_experts_per_tok: 3,
        n_routed_experts: 8,
        topk_method: "group_limited_greedy",
        n_group: 4,
        topk_group: 2,
        q_lora_rank: null,
        head_dim: 16,
      }),
      {
        head_dim: 64,
        latent: { q_lora_rank: null },
        moe: { routing: { groups: { count: 4, best: 2, score: "best" } } },
      },
    ],
    [
      "deepseek_v3's defaults",
      of("deepseek_v3"),
      {
        head_dim: 64,
        max_position_embeddings: 4096,
        bosTokenIds: [0],
        moe: {
          routing: {
            experts: 256,
            top_k: 8,
            score: "sigmoid",
            renormalize: { least: 1e-20 },
            scaling: 2.5,
            groups: { count: 8, best: 4, score: "two best" },
          },
          inner: 2048,
          shared: { inner: 2048, gated: false },
        },
      },
    ],
    [
      "deepseek_v3's scale with YaRN's mscale_all_dim",
      of("deepseek_v3", {
        qk_nope_head_dim: 16,
        qk_rope_head_dim: 16,
        rope_interleave: false,
        rope_scaling: { type: "yarn", factor: 4, mscale: 0.8, mscale_all_dim: 0.6 },
      }),
      {
        head_dim: 16,
        latent: { interleaved: false },
        attentionScale: (1 / Math.sqrt(32)) * (0.06 * Math.log(4) + 1) ** 2,
      },
    ],
    ["gpt_neox at once by default", of("gpt_neox"), { parallelResidual: true }],
    ["stablelm in turn by default", of("stablelm"), { parallelResidual: false, qkNorm: false }],
    [
      "gpt2's own names",
      { ...GPT2, n_positions: 32, n_inner: null },
      { hidden_size: 64, intermediate_size: 256, max_position_embeddings: 32, ropes: [], layerRopes: [null, null] },
    ],
    [
      "gpt2 without a scale",
      { ...GPT2, scale_attn_weights: false, n_inner: 100 },
      { attentionScale: 1, intermediate_size: 100 },
    ],
    [
      "smollm3's layers without rope",
      of("smollm3", { no_rope_layers: [1, 0, 1, 1] }),
      { layerRopes: [0, null, 0, 0], windows: [null, null, null, null] },
    ],
    [
      "smollm3 slides where it has no rope",
      of("smollm3", { no_rope_layer_interval: 2, use_sliding_window: true, sliding_window: 8 }),
      { layerRopes: [0, null, 0, null], windows: [null, 8, null, 8] },
    ],
    [
      "exaone4 without windows has rope everywhere",
      of("exaone4", { sliding_window: null }),
      { layerRopes: [0, 0, 0, 0] },
    ],
    [
      "exaone4's layer_types go before its pattern in letters",
      of("exaone4", {
        sliding_window: 8,
        sliding_window_pattern: "LLLG",
        layer_types: ["sliding_attention", "full_attention", "full_attention", "full_attention"],
      }),
      { windows: [8, null, null, null], layerRopes: [0, null, null, null] },
    ],
    [
      "hunyuan's alpha is a larger theta, at any length",
      of("hunyuan_v1_dense", {
        use_qk_norm: true,
        rope_scaling: { type: "dynamic", alpha: 16, factor: 1, beta_fast: 32, mscale: 1 },
      }),
      { ropes: [{ type: "default", theta: 10_000 * 16 ** (16 / 14), rotary_dim: 16 }] },
    ],
    [
      "phi3's original length is 4096 unless it says another",
      of("phi3", {
        max_position_embeddings: 8192,
        rope_scaling: { type: "yarn", short_factor: Array(8).fill(1), long_factor: Array(8).fill(2) },
      }),
      { ropes: [expect.objectContaining({ type: "longrope", original_max_position_embeddings: 4096 })] },
    ],
  ])("%s", (_, raw, want) => {
    expect(readConfig(raw)).toMatchObject(want);
  });

  const scaling = { type: "linear", factor: 8 };
  test.each<[string, Json, Json]>([
    [
      "gpt_neox",
      { rotary_emb_base: 20_000, rotary_pct: 0.5, rope_scaling: null, torch_dtype: "float16" },
      { rope_parameters: { rope_type: "default", rope_theta: 20_000, partial_rotary_factor: 0.5 }, dtype: "float16" },
    ],
    [
      "phi",
      { rope_theta: 5000, partial_rotary_factor: 0.25, rope_scaling: { ...scaling } },
      { rope_parameters: { rope_type: "linear", factor: 8, rope_theta: 5000, partial_rotary_factor: 0.25 } },
    ],
    [
      "gemma3_text",
      { rope_theta: 2e6, rope_local_base_freq: 5000, rope_scaling: { rope_type: "linear", factor: 8 } },
      {
        rope_parameters: {
          full_attention: { rope_type: "linear", factor: 8, rope_theta: 2e6 },
          sliding_attention: { rope_type: "default", rope_theta: 5000 },
        },
      },
    ],
    ["nemotron", { rope_theta: 5000, partial_rotary_factor: 0.5 }, { rope_parameters: { rope_theta: 5000 } }],
  ])("%s says the same in both spellings", (model_type, old, current) => {
    expect(readConfig(of(model_type, old))).toEqual(readConfig(of(model_type, current)));
  });
});

describe("refused by name", () => {
  test.each<[string, Json, string]>([
    ["gpt2 with another encoder", { ...GPT2, add_cross_attention: true }, "add_cross_attention is true"],
    [
      "gemma that looks ahead",
      of("gemma", { use_bidirectional_attention: true }),
      "use_bidirectional_attention is true",
    ],
    ["gemma with another gelu", of("gemma", { hidden_activation: "relu" }), 'hidden_activation is "relu"'],
    ["KV heads of their own in gpt_neox", of("gpt_neox", { num_key_value_heads: 2 }), "num_key_value_heads is 2"],
    [
      "a head's size of its own in stablelm",
      of("stablelm", { head_dim: 32 }),
      "head_dim is 32, supported: hidden_size",
    ],
    [
      "a rope that phi3 does not know",
      of("phi3", { rope_scaling: { type: "llama3" } }),
      'rope_scaling.type is "llama3"',
    ],
    ["rope over a part in qwen2", of("qwen2", { partial_rotary_factor: 0.5 }), "partial_rotary_factor is 0.5"],
    ["caps in qwen2", of("qwen2", { final_logit_softcapping: 30 }), "final_logit_softcapping is 30"],
    ["granite's multiplier in llama", of("llama", { residual_multiplier: 0.22 }), "residual_multiplier is 0.22"],
    ["a cap on gemma3's scores", of("gemma3_text", { attn_logit_softcapping: 50 }), "attn_logit_softcapping is 50"],
    [
      "a multiplier of 0",
      of("granite", { residual_multiplier: 0 }),
      "residual_multiplier is 0, expected a number above 0",
    ],
    [
      "too few no_rope_layers",
      of("smollm3", { no_rope_layers: [1, 0] }),
      "no_rope_layers is a list of 2, expected 0 or 1",
    ],
    [
      "hunyuan without its norms",
      of("hunyuan_v1_dense", { use_qk_norm: false }),
      "use_qk_norm is false, supported: true",
    ],
    [
      "deepseek_v2 that scores by sigmoid",
      of("deepseek_v2", { num_experts_per_tok: 2, scoring_func: "sigmoid" }),
      'scoring_func is "sigmoid", supported: softmax',
    ],
    [
      "deepseek_v3 that chooses otherwise",
      of("deepseek_v3", { topk_method: "greedy" }),
      'topk_method is "greedy", supported: noaux_tc',
    ],
    [
      "a latent that is too long",
      of("deepseek_v3", { kv_lora_rank: 768 }),
      "kv_lora_rank is 768, with qk_rope_head_dim 832, supported: what the attention kernels hold, 512 and 576",
    ],
    ["an odd latent", of("deepseek_v3", { kv_lora_rank: 33 }), "kv_lora_rank is 33, expected an even number"],
    [
      "groups of one expert, whose two best are compared",
      of("deepseek_v3", { n_routed_experts: 8, n_group: 8 }),
      "n_group is 8, expected groups of at least two experts",
    ],
    ["KV heads of their own in deepseek_v3", of("deepseek_v3", { num_key_value_heads: 2 }), "num_key_value_heads is 2"],
    ["gemma3 without a text model", { model_type: "gemma3", ...SMALL }, "text_config is missing"],
    [
      "two local thetas in gemma3_text",
      of("gemma3_text", { rope_local_base_freq: 5000, rope_parameters: { sliding_attention: { rope_theta: 6000 } } }),
      "rope_local_base_freq is 5000",
    ],
    [
      "lfm2 with two statements of its layers",
      of("lfm2", { full_attn_idxs: [0], layer_types: ["conv", "full_attention", "conv", "conv"] }),
      "full_attn_idxs is a list of 1",
    ],
    [
      "a layer that lfm2 has not",
      of("lfm2", { layer_types: ["conv", "mamba", "conv", "conv"] }),
      'layer_types has "mamba"',
    ],
    ["a layer past lfm2's end", of("lfm2", { full_attn_idxs: [4] }), "full_attn_idxs is a list of 1, expected"],
    ["two widths of lfm2", of("lfm2", { block_ff_dim: 100 }), "block_ff_dim is 100"],
    ["a convolution of no taps", of("lfm2", { conv_L_cache: 0 }), "conv_L_cache is 0, expected a positive integer"],
    [
      "a width of lfm2 that is adjusted to nothing",
      of("lfm2", { block_ffn_dim_multiplier: 1e-9 }),
      "block_auto_adjust_ff_dim makes 0 of a width of 96, expected 1 to 1048576",
    ],
    [
      "a width of lfm2 that is adjusted beyond any",
      of("lfm2", { intermediate_size: 2 ** 20, block_ffn_dim_multiplier: 1000 }),
      "block_auto_adjust_ff_dim makes 699050240 of a width of 1048576, expected 1 to 1048576",
    ],
    ["convolutions in llama", of("llama", { conv_L_cache: 3 }), "conv_L_cache is 3"],
    ["a window in qwen3_next", of("qwen3_next", { sliding_window: 8 }), "sliding_window is 8"],
    ["another activation in qwen3_next", of("qwen3_next", { hidden_act: "gelu" }), 'hidden_act is "gelu"'],
    [
      "values that keys do not divide among them",
      of("qwen3_next", { linear_num_key_heads: 3, linear_num_value_heads: 4 }),
      "linear_num_value_heads is 4, expected a multiple of linear_num_key_heads, 3",
    ],
    ["a longer key than fits", of("qwen3_next", { linear_key_head_dim: 257 }), "linear_key_head_dim is 257"],
    ["an activation nobody has", of("nemotron", { hidden_act: "wobble" }), 'hidden_act is "wobble"'],
  ])("%s", (_, raw, words) => {
    expect(() => readConfig(raw)).toThrow(`config.json: ${words}`);
  });
});
