/**
 * LFM2: short convolutions with a gate on both sides, and in picked layers attention with q and k normed head by head. 5 L + 3 dispatches.
 *
 * Source: transformers, models/lfm2/modeling_lfm2.py.
 */
import { attention, gatedMlp, headNorms, rmsNorm, sequential } from "../blocks.ts";
import {
  booleanField,
  contradiction,
  type Fields,
  field,
  listField,
  optionalInteger,
  optionalNumber,
  refused,
} from "../configChecks.ts";
import { type ConfigRules, LLAMA_RULES, NO_BIASES } from "../configRules.ts";
import { decoder } from "../decoder.ts";
import { ModelFormatError } from "../errors.ts";
import type { Family } from "../model.ts";
import { shortConvolution } from "../stateBlocks.ts";
import { layersOf, readTaps } from "../stateConfig.ts";

const WIDTH = { min: 1, max: 2 ** 20 };
const THETA = 1_000_000;

/** `block_ff_dim` or `intermediate_size`, of which `block_auto_adjust_ff_dim` takes two thirds and rounds them up. */
function readWidth(fields: Fields): number {
  const [older, newer] = ["block_ff_dim", "intermediate_size"].map((name) => optionalInteger(fields, name, WIDTH));
  if (older !== undefined && newer !== undefined && older !== newer)
    throw contradiction(fields, "block_ff_dim", "intermediate_size");
  const width = older ?? newer ?? 12_288;
  const adjusted = adjust(fields, width);
  if (adjusted >= WIDTH.min && adjusted <= WIDTH.max) return adjusted;
  const from = `${fields.file}: block_auto_adjust_ff_dim makes ${adjusted} of a width of ${width}`;
  const keys = "block_ffn_dim_multiplier and block_multiple_of";
  throw new ModelFormatError("CONFIG", `${from}, expected ${WIDTH.min} to ${WIDTH.max}; are ${keys} right?`);
}

function adjust(fields: Fields, width: number): number {
  const multiple = optionalInteger(fields, "block_multiple_of", WIDTH) ?? 256;
  const written = optionalNumber(fields, "block_ffn_dim_multiplier", { above: 0, max: 1e3 });
  if (booleanField(fields, "block_auto_adjust_ff_dim") === false) return width;
  const part = Math.floor((2 * width) / 3);
  if (written === undefined && hasNull(fields, "block_ffn_dim_multiplier")) return part;
  return multiple * Math.ceil(Math.floor((written ?? 1) * part) / multiple);
}

/** Whether a field is there and says null. */
const hasNull = ({ values }: Fields, key: string): boolean => Object.hasOwn(values, key) && values[key] === null;

/** Layers with attention where `layer_types` does not say: `full_attn_idxs`, or all. */
function picked(fields: Fields, layers: number): (layer: number) => boolean {
  const indices = listField(fields, "full_attn_idxs");
  const odd = indices?.find((i) => typeof i !== "number" || !Number.isInteger(i) || i < 0 || i >= layers);
  if (odd !== undefined) throw refused(fields, "full_attn_idxs", `a list of layers below ${layers}`);
  return (layer) => indices?.includes(layer) ?? true;
}

const config: ConfigRules = {
  ...LLAMA_RULES,
  sizes: { vocab_size: 65_536, hidden_size: 2560, num_hidden_layers: 32, num_attention_heads: 32 },
  width: readWidth,
  max_position_embeddings: 128_000,
  num_key_value_heads: 8,
  norm: { key: "norm_eps", eps: 1e-5 },
  tied: true,
  tiedBefore: "tie_embedding",
  window: { kind: "none", others: ["conv"] },
  biases: NO_BIASES,
  rope: { theta: THETA, partial: null },
  extras(fields, { num_hidden_layers: layers }) {
    const theta = field(fields, "theta"); // another name of rope_theta, which goes before it
    if (theta !== undefined && theta !== (field(fields, "rope_theta") ?? THETA))
      throw contradiction(fields, "theta", "rope_theta");
    const attends = picked(fields, layers);
    const has = layersOf(fields, "conv", layers, (layer) => !attends(layer));
    if (field(fields, "full_attn_idxs") !== undefined && has.some((conv, layer) => conv === attends(layer)))
      throw contradiction(fields, "full_attn_idxs", "layer_types");
    return {
      shortConv: {
        layers: has,
        taps: readTaps(fields, "conv_L_cache", 3),
        bias: booleanField(fields, "conv_bias") ?? false,
      },
    };
  },
};

/** LFM2, dense. */
export const lfm2: Family = {
  config,
  build(weights, config) {
    const { shortConv } = config;
    const names = ["w1", "w3", "w2"] as const;
    return decoder(weights, config, {
      embed_tokens: "model.embed_tokens",
      layer(i) {
        const path = `model.layers.${i}`;
        const [self_attn, conv] = [`${path}.self_attn`, `${path}.conv`];
        const mixer =
          shortConv?.layers[i] === true
            ? shortConvolution(weights, conv, i, config, shortConv)
            : attention(weights, self_attn, i, config, {
                output: { module: `${self_attn}.out_proj` },
                spec: {
                  qkNorm: headNorms(weights, `${self_attn}.q_layernorm`, `${self_attn}.k_layernorm`, config),
                },
              });
        return sequential(
          rmsNorm(weights, `${path}.operator_norm`, config),
          mixer,
          rmsNorm(weights, `${path}.ffn_norm`, config),
          gatedMlp(weights, `${path}.feed_forward`, config, { names }),
        );
      },
      norm: () => rmsNorm(weights, "model.embedding_norm", config),
      lm_head: "lm_head",
    });
  },
};
