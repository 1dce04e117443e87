/** What each family's config means beyond its letters: the defaults of transformers' config class, and the keys that are not the family's own. */

/** How a family reads `sliding_window`: it has none; every layer has it; the layers do that `use_sliding_window`, `max_window_layers` or `layer_types` pick. */
export type WindowRule = "none" | "every layer" | "picked layers";

/** One family, keyed by `model_type`. Values are those of its config class in transformers 5.24, which a published config may leave out. */
export interface ConfigRules {
  readonly max_position_embeddings: number;
  /** "heads": as many as attention heads. */
  readonly num_key_value_heads: number | "heads";
  /** "hidden / heads" or a number. */
  readonly head_dim: number | "hidden / heads";
  readonly bosTokenIds: readonly number[];
  readonly eosTokenIds: readonly number[];
  readonly window: WindowRule;
  /** Of `attention_bias` and `mlp_bias`, those the family reads; the others are refused when true. */
  readonly biases: readonly ("attention_bias" | "mlp_bias")[];
  readonly partialRotary: boolean;
}

const QWEN: ConfigRules = {
  max_position_embeddings: 32_768,
  num_key_value_heads: 32,
  head_dim: "hidden / heads",
  bosTokenIds: [],
  eosTokenIds: [],
  window: "picked layers",
  biases: [],
  partialRotary: false,
};

/** The families whose config can be normalised. */
export const CONFIG_RULES: Readonly<Record<string, ConfigRules>> = {
  llama: {
    max_position_embeddings: 2048,
    num_key_value_heads: "heads",
    head_dim: "hidden / heads",
    bosTokenIds: [1],
    eosTokenIds: [2],
    window: "none",
    biases: ["attention_bias", "mlp_bias"],
    partialRotary: false,
  },
  mistral: {
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    head_dim: "hidden / heads",
    bosTokenIds: [1],
    eosTokenIds: [2],
    window: "every layer",
    biases: [],
    partialRotary: false,
  },
  qwen2: QWEN,
  qwen3: { ...QWEN, head_dim: 128, biases: ["attention_bias"] },
};

/**
 * Keys of other families that change what is computed, with the values at which they change nothing (null and absent always do).
 *
 * A config that sets one of them is of another architecture than its `model_type` says; transformers would ignore the key, other engines not,
 * so it is refused. Every other unknown key is let pass: configs carry dozens of harmless ones (`initializer_range`, dropouts, `use_cache`,
 * `transformers_version`, `auto_map`, which is never run). `pretraining_tp` is harmless too: it cuts a matmul into slices of the same sum.
 */
export const FOREIGN_KEYS: Readonly<Record<string, readonly unknown[]>> = {
  // numbers that scale or clamp
  attn_logit_softcapping: [],
  final_logit_softcapping: [],
  query_pre_attn_scalar: [],
  attention_multiplier: [],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  logits_scaling: [1],
  logit_scale: [1],
  scale_emb: [1],
  scale_depth: [],
  dim_model_base: [],
  clip_qkv: [],
  swiglu_limit: [],
  // other norms, biases and blocks
  qk_norm: [false],
  use_qk_norm: [false],
  qk_layernorm: [false],
  bias: [false],
  use_bias: [false],
  qkv_bias: [false],
  use_qkv_bias: [false],
  use_parallel_residual: [false],
  parallel_attn: [false],
  add_cross_attention: [false],
  is_encoder_decoder: [false],
  cross_attention_layers: [],
  block_configs: [],
  per_layer_config: [],
  // other positions and masks
  rope_interleaved: [false],
  rotary_pct: [1],
  rotary_emb_base: [],
  mrope_section: [],
  use_mrope: [false],
  alibi: [false],
  use_alibi: [false],
  no_rope_layer_interval: [],
  attention_chunk_size: [],
  attention_sinks: [false],
  use_attention_sinks: [false],
  is_causal: [true],
  use_bidirectional_attention: [false],
  // mixtures of experts and latent attention
  num_experts: [0],
  num_local_experts: [0],
  n_routed_experts: [0],
  kv_lora_rank: [],
  q_lora_rank: [],
};
