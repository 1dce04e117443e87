/** config.json said another way: the spellings of transformers 4 and 5, each for the other or both at once, and layers picked by a rule. */
import type { Saying } from "./saying.ts";
import type { TinyModel } from "./tinyModel.ts";

type Config = TinyModel["config"];

const isObject = (value: unknown): value is Config =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Fields of transformers 5 in place of those of transformers 4, or the other way. */
export const otherSpelling: Saying = {
  name: "config.json in the other spelling",
  say: ({ config, tensors }) => ({ config: isNew(config) ? older(config) : newer(config), tensors }),
};

/** Fields of both, which say the same. */
export const bothSpellings: Saying = {
  name: "config.json in both spellings at once",
  say({ config, tensors }) {
    return { config: { ...config, ...(isNew(config) ? older(config) : newer(config)) }, tensors };
  },
};

const isNew = (config: Config): boolean => Object.hasOwn(config, "dtype");

/** As transformers 4 writes it. */
function older(config: Config): Config {
  if (!isNew(config)) return config;
  const { dtype, rope_parameters, ...rest } = config;
  const rope = oldRope(rope_parameters);
  const own = config.model_type === "gpt_neox" ? neoxRope(rope) : rope;
  return { ...experts(rest, "num_local_experts", "num_experts"), torch_dtype: dtype, ...own };
}

/** GPT-NeoX's own names. */
function neoxRope({ rope_theta, partial_rotary_factor, ...rest }: Config): Config {
  const theta = rope_theta === undefined ? {} : { rotary_emb_base: rope_theta };
  return { ...rest, ...theta, ...(partial_rotary_factor === undefined ? {} : { rotary_pct: partial_rotary_factor }) };
}

function oldRope(parameters: unknown): Config {
  if (!isObject(parameters)) return {};
  const { full_attention, sliding_attention } = parameters;
  if (isObject(full_attention) && isObject(sliding_attention))
    return { ...oldRope(full_attention), rope_local_base_freq: sliding_attention.rope_theta };
  const { rope_theta, partial_rotary_factor, rope_type, ...scaling } = parameters;
  return {
    rope_theta,
    ...(partial_rotary_factor === undefined ? {} : { partial_rotary_factor }),
    rope_scaling: rope_type === "default" ? null : { type: rope_type, ...scaling },
  };
}

/** As transformers 5 writes it. */
function newer(config: Config): Config {
  if (isNew(config)) return config;
  const { torch_dtype, rope_theta, rope_scaling, partial_rotary_factor, rotary_emb_base, rotary_pct, ...rest } = config;
  const scaling = isObject(rope_scaling) ? rope_scaling : {};
  const { type = "default", rope_type = type, ...own } = scaling;
  const partial = partial_rotary_factor ?? rotary_pct;
  const rope_parameters = {
    rope_type,
    rope_theta: rope_theta ?? rotary_emb_base,
    ...(partial === undefined ? {} : { partial_rotary_factor: partial }),
    ...own,
  };
  const rope = rope_parameters.rope_theta === undefined ? {} : { rope_parameters };
  return { ...experts(rest, "num_experts", "num_local_experts"), dtype: torch_dtype, ...rope };
}

/** The number of experts, under another name. */
function experts(config: Config, from: string, to: string): Config {
  const { [from]: count, ...rest } = config;
  return count === undefined ? config : { ...rest, [to]: count };
}

/** Layers by the rules that configs had before `layer_types`. */
export const layersByRule: Saying = {
  name: "layers picked by a rule instead of layer_types",
  say({ config: { layer_types, ...config }, tensors }) {
    if (!Array.isArray(layer_types)) return null;
    const full = layer_types.flatMap((type, layer) => (type === "full_attention" ? [layer] : []));
    const rules: Readonly<Record<string, Config>> = {
      gemma2: {},
      gemma3_text: { sliding_window_pattern: (full[0] ?? 0) + 1, _sliding_window_pattern: undefined },
      gpt_oss: {},
      lfm2: { full_attn_idxs: full },
      qwen3_next: { full_attention_interval: (full[0] ?? 0) + 1 },
    };
    const rule = rules[String(config.model_type)];
    return rule === undefined ? null : { config: { ...config, ...rule }, tensors };
  },
};
