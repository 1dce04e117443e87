/** What a family's file says of its config.json: the defaults of transformers' config class, and which fields it reads. */
import type { Activation } from "../kernels/fragments/act.ts";
import type { Fields } from "./configChecks.ts";
import type { LatentConfig } from "./latentConfig.ts";
import type { MoeConfig } from "./moeConfig.ts";
import type { RopeConfig } from "./rope.ts";
import type { RopeRules } from "./ropeConfig.ts";
import type { DeltaNetConfig, ShortConvConfig } from "./stateConfig.ts";

/** How heads lie in the hidden vector. */
export interface HeadShape {
  readonly hidden_size: number;
  readonly num_attention_heads: number;
  /** Divides num_attention_heads. */
  readonly num_key_value_heads: number;
  /** Even; heads × head_dim need not be hidden_size. */
  readonly head_dim: number;
}

/** What some families scale, cap or add. */
export interface Extras {
  /** Multiplies the rows of the embedding. */
  readonly embeddingMultiplier: number;
  /** Multiplies what each block adds to the residual stream; above 0. */
  readonly residualMultiplier: number;
  /** Multiplies q · k. */
  readonly attentionScale: number;
  /** Whether q · k is also divided by the number of its layer, from 1 on. */
  readonly scaledByLayer: boolean;
  /** q · k goes through cap · tanh(· / cap). */
  readonly attentionSoftcap: number | null;
  /** Multiplies logits; above 0. */
  readonly logitsScale: number;
  /** Logits go through cap · tanh(· / cap). */
  readonly logitsSoftcap: number | null;
  /** Whether q and k are normed, where the family leaves a choice. */
  readonly qkNorm: boolean;
  /** Whether attention and MLP read the same residual stream, where the family leaves a choice. */
  readonly parallelResidual: boolean;
  /** Queries, keys and values are clamped to ± this. */
  readonly attentionClip: number | null;
  readonly moe: MoeConfig | null;
  /** Attention over latents, by which `head_dim` is what is rotated of a query. */
  readonly latent: LatentConfig | null;
  /** Layers with something in attention's place. */
  readonly shortConv: ShortConvConfig | null;
  readonly deltaNet: DeltaNetConfig | null;
}

/** What is known of a config when its extras are read. */
export interface ExtrasContext extends HeadShape {
  readonly num_hidden_layers: number;
}

/** Whether a projection has a bias: always, never, or as a field says. */
export type BiasRule = boolean | { readonly key: string; readonly otherwise: boolean };

/**
 * How a family reads `sliding_window`: it has none; every layer has it; where `use_sliding_window` is on, those layers do that `picks` or
 * `layer_types` pick; all but each `pattern`-th layer do unless `layer_types` says otherwise. `otherwise`: the window that is not written.
 * `others`: types of layers that have something in attention's place.
 */
export type WindowRule =
  | { readonly kind: "none"; readonly others?: readonly string[] }
  | { readonly kind: "every layer"; readonly otherwise: number | null }
  | {
      readonly kind: "picked layers";
      readonly otherwise: number | null;
      readonly picks: (fields: Fields, layers: number) => (layer: number) => boolean;
    }
  | { readonly kind: "pattern"; readonly otherwise: number | null; readonly pattern: number; readonly key?: string };

/** The ropes of a model: tables of rotations, and which one each layer has; null: none. */
export interface LayerRopes {
  readonly ropes: readonly RopeConfig[];
  readonly layerRopes: readonly (number | null)[];
}

/** What is known of a config when the ropes of its layers are read. */
export interface RopeContext extends HeadShape {
  readonly num_hidden_layers: number;
  readonly max_position_embeddings: number;
  readonly windows: readonly (number | null)[];
}

/** Sizes that a config may leave out in some families. */
export type SizeKey = "hidden_size" | "intermediate_size" | "num_hidden_layers" | "num_attention_heads" | "vocab_size";

/** One family. Values are those of its config class in transformers 5.24, which a published config may leave out. */
export interface ConfigRules {
  /** The object that has the text model's fields, where the file is of a larger model; those beside it count where it says nothing. */
  readonly within?: string;
  /** The file's names of fields, where they are not the usual ones. */
  readonly names?: Readonly<Partial<Record<SizeKey | "max_position_embeddings" | "head_dim", string>>>;
  /** An entry of `architectures` beside those that end in ForCausalLM. */
  readonly architecture?: string;
  readonly sizes?: Readonly<Partial<Record<SizeKey, number>>>;
  /** The width of an MLP that is not written, by hidden_size; undefined: it must be. */
  readonly widthOf?: (hidden_size: number) => number;
  /** Reads the width of an MLP, where it is more than a field. */
  readonly width?: (fields: Fields) => number;
  readonly max_position_embeddings: number;
  /** "heads": as many as attention heads; "always heads": a field that says otherwise is refused. */
  readonly num_key_value_heads: number | "heads" | "always heads";
  /** A number, hidden_size / num_attention_heads, or that always: a field that says otherwise is refused. */
  readonly head_dim: number | "hidden / heads" | "always hidden / heads";
  readonly norm: { readonly key: string; readonly eps: number };
  readonly activation: { readonly key: string; readonly otherwise: Activation; readonly gelu?: Activation };
  readonly tied: boolean;
  /** An older name of tie_word_embeddings. */
  readonly tiedBefore?: string;
  readonly bosTokenIds: readonly number[];
  readonly eosTokenIds: readonly number[];
  readonly window: WindowRule;
  readonly biases: { readonly qkv: BiasRule; readonly o: BiasRule; readonly mlp: BiasRule };
  /** null: learned positions or none. */
  readonly rope: RopeRules | null;
  /** Which rope each layer has, where they differ; else all have the one of `rope`. */
  readonly ropes?: (fields: Fields, context: RopeContext) => LayerRopes;
  /** What else the family reads. */
  readonly extras?: (fields: Fields, context: ExtrasContext) => Partial<Extras>;
}

const attention_bias = { key: "attention_bias", otherwise: false };

/** Biases of attention's projections alone, by their usual field. */
export const ATTENTION_BIASES: ConfigRules["biases"] = { qkv: attention_bias, o: attention_bias, mlp: false };

/** No bias at all. */
export const NO_BIASES: ConfigRules["biases"] = { qkv: false, o: false, mlp: false };

/**
 * Llama's config class: where most families differ in few lines.
 */
export const LLAMA_RULES: ConfigRules = {
  max_position_embeddings: 2048,
  num_key_value_heads: "heads",
  head_dim: "hidden / heads",
  norm: { key: "rms_norm_eps", eps: 1e-6 },
  activation: { key: "hidden_act", otherwise: "silu" },
  tied: false,
  bosTokenIds: [1],
  eosTokenIds: [2],
  window: { kind: "none" },
  biases: { ...ATTENTION_BIASES, mlp: { key: "mlp_bias", otherwise: false } },
  rope: { theta: 10_000, partial: null },
};

/**
 * Keys that change what is computed in some family, with the values at which they change nothing (null and absent always do).
 *
 * A config that sets one which its family does not read is of another architecture than its `model_type` says; transformers would ignore
 * the key, other engines not, so it is refused. Every other unknown key is let pass: configs carry dozens of harmless ones
 * (`initializer_range`, dropouts, `use_cache`, `transformers_version`, `auto_map`, which is never run). `pretraining_tp` is harmless too:
 * it cuts a matmul into slices of the same sum.
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
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  // other norms, biases and blocks
  attention_bias: [false],
  mlp_bias: [false],
  qk_norm: [false],
  use_qk_norm: [false],
  qk_layernorm: [false],
  bias: [false],
  lm_head_bias: [false],
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
  no_rope_layers: [],
  rope_interleaved: [false],
  rotary_pct: [1],
  rotary_emb_base: [],
  mrope_section: [],
  use_mrope: [false],
  alibi: [false],
  use_alibi: [false],
  no_rope_layer_interval: [],
  rope_local_base_freq: [],
  attention_chunk_size: [],
  attention_sinks: [false],
  use_attention_sinks: [false],
  is_causal: [true],
  use_bidirectional_attention: [false],
  // layers with something in attention's place
  conv_L_cache: [],
  full_attn_idxs: [],
  full_attention_interval: [],
  linear_num_value_heads: [],
  // mixtures of experts and latent attention
  num_experts: [0],
  num_local_experts: [0],
  n_routed_experts: [0],
  kv_lora_rank: [],
  q_lora_rank: [],
};
