/** One normalised config for every model family: config.json in either spelling of transformers, checked in every number, with defaults filled in. */
import {
  booleanField,
  type Fields,
  field,
  fieldsOf,
  hasField,
  integerField,
  listField,
  MAX_POSITIONS,
  optionalInteger,
  optionalNumber,
  refused,
  show,
  spelling,
  textField,
  tokenIdsField,
  unsupported,
} from "./configChecks.ts";
import { CONFIG_RULES, type ConfigRules, FOREIGN_KEYS } from "./configRules.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import { normalizeQuantization, type Quantization } from "./quantization.ts";
import type { RopeConfig } from "./rope.ts";
import { readRope } from "./ropeConfig.ts";

/** The function between gate and up of a feed-forward block. */
export type Activation = "silu";

/** The type that a checkpoint says its plain weights have; each tensor states its own. */
export type CheckpointDtype = "float32" | "float16" | "bfloat16";

/** config.json, checked. Names of the hub are kept; what is ours to name is camelCase. */
export interface ModelConfig {
  readonly model_type: string;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  /** Divides num_attention_heads. */
  readonly num_key_value_heads: number;
  /** Even; heads × head_dim need not be hidden_size. */
  readonly head_dim: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly hidden_act: Activation;
  readonly tie_word_embeddings: boolean;
  /** Biases of q, k, v and o. */
  readonly attention_bias: boolean;
  /** Biases of gate, up and down. */
  readonly mlp_bias: boolean;
  readonly rope: RopeConfig;
  /** One a layer: how many positions a token sees, its own included; null: all before it. */
  readonly windows: readonly (number | null)[];
  readonly bosTokenIds: readonly number[];
  readonly eosTokenIds: readonly number[];
  readonly padTokenIds: readonly number[];
  readonly quantization: Quantization | null;
  /** null: the file doesn't say. */
  readonly dtype: CheckpointDtype | null;
}

const FILE = "config.json";

// Above these a number is a mistake or an attack: each is 4 or more times the largest published model's. Products stay below 2^53.
const SIZE = { min: 1, max: 2 ** 17 }; // hidden_size; 18,432 is published
const WIDTH = { min: 1, max: 2 ** 20 }; // intermediate_size; 73,728
const LAYERS = { min: 1, max: 2 ** 10 }; // 126
const HEADS = { min: 1, max: 2 ** 10 }; // 128
const HEAD_DIM = { min: 2, max: 2 ** 10 }; // 256
const VOCABULARY = { min: 1, max: 2 ** 22 }; // 262,208
const POSITIONS = { min: 1, max: MAX_POSITIONS };

const ACTIVATIONS: Readonly<Record<string, Activation>> = { silu: "silu", swish: "silu" }; // two names of one function in transformers
const DTYPES: readonly CheckpointDtype[] = ["float32", "float16", "bfloat16"];

/** The `model_type` of a parsed config.json, before anything else is looked at. Throws ModelFormatError where there is none. */
export function modelTypeOf(raw: unknown): string {
  const fields = fieldsOf(FILE, raw);
  const model_type = textField(fields, "model_type");
  if (model_type === undefined || model_type === "") throw refused(fields, "model_type", "the name of a model family");
  return model_type;
}

/**
 * The config of a checkpoint, from parsed JSON.
 *
 * Throws ModelFormatError, code CONFIG, for a value of the wrong type or out of range and for two spellings that disagree;
 * UnsupportedModelError for a legal value that ingle doesn't run. Both name the field and its value. Nothing was allocated by then.
 */
export function normalizeConfig(raw: unknown): ModelConfig {
  const model_type = modelTypeOf(raw);
  const fields = fieldsOf(FILE, raw);
  const rules = Object.hasOwn(CONFIG_RULES, model_type) ? CONFIG_RULES[model_type] : undefined;
  if (rules === undefined) throw unsupported(fields, "model_type", Object.keys(CONFIG_RULES).join(", "));
  refuseOtherHeads(fields);
  refuseForeignKeys(fields, rules, model_type);
  const num_hidden_layers = integerField(fields, "num_hidden_layers", LAYERS);
  const max_position_embeddings =
    optionalInteger(fields, "max_position_embeddings", POSITIONS) ?? rules.max_position_embeddings;
  const attention = readAttention(fields, rules);
  return {
    model_type,
    ...attention,
    intermediate_size: integerField(fields, "intermediate_size", WIDTH),
    num_hidden_layers,
    vocab_size: integerField(fields, "vocab_size", VOCABULARY),
    max_position_embeddings,
    rms_norm_eps: optionalNumber(fields, "rms_norm_eps", { above: 0, max: 1 }) ?? 1e-6, // the classes' default
    hidden_act: readActivation(fields),
    tie_word_embeddings: booleanField(fields, "tie_word_embeddings") ?? false, // false in all classes of CONFIG_RULES
    attention_bias: booleanField(fields, "attention_bias") ?? false,
    mlp_bias: booleanField(fields, "mlp_bias") ?? false,
    rope: readRope(fields, { ...attention, max_position_embeddings, partialRotary: rules.partialRotary }),
    windows: readWindows(fields, rules, num_hidden_layers),
    bosTokenIds: tokenIdsField(fields, "bos_token_id", rules.bosTokenIds),
    eosTokenIds: tokenIdsField(fields, "eos_token_id", rules.eosTokenIds),
    padTokenIds: tokenIdsField(fields, "pad_token_id"),
    quantization: normalizeQuantization(fields),
    dtype: readDtype(fields),
  };
}

function readAttention(fields: Fields, rules: ConfigRules) {
  const hidden_size = integerField(fields, "hidden_size", SIZE);
  const num_attention_heads = integerField(fields, "num_attention_heads", HEADS);
  const num_key_value_heads = readKvHeads(fields, rules, num_attention_heads);
  if (num_attention_heads % num_key_value_heads !== 0) {
    const kv = `num_key_value_heads is ${num_key_value_heads}`;
    throw new ModelFormatError(
      "CONFIG",
      `${FILE}: ${kv}, expected a divisor of num_attention_heads, ${num_attention_heads}`,
    );
  }
  const head_dim = readHeadDim(fields, rules, hidden_size, num_attention_heads);
  return { hidden_size, num_attention_heads, num_key_value_heads, head_dim };
}

function readKvHeads(fields: Fields, rules: ConfigRules, heads: number): number {
  const written = optionalInteger(fields, "num_key_value_heads", HEADS);
  if (written !== undefined) return written;
  // transformers: null means as many as heads in every family, a key left out means the class's default
  return hasField(fields, "num_key_value_heads") || rules.num_key_value_heads === "heads"
    ? heads
    : rules.num_key_value_heads;
}

function readHeadDim(fields: Fields, rules: ConfigRules, hidden_size: number, heads: number): number {
  const head_dim = optionalInteger(fields, "head_dim", HEAD_DIM);
  if (head_dim === undefined && typeof rules.head_dim === "number") return rules.head_dim;
  if (head_dim === undefined && hidden_size % heads !== 0) {
    throw refused(fields, "hidden_size", `a multiple of num_attention_heads, ${heads}, or a head_dim`);
  }
  const size = head_dim ?? hidden_size / heads;
  if (size % 2 !== 0 || size > HEAD_DIM.max) {
    const from = head_dim === undefined ? "hidden_size / num_attention_heads" : "head_dim";
    throw new ModelFormatError(
      "CONFIG",
      `${FILE}: ${from} is ${size}, expected an even number of at most ${HEAD_DIM.max}`,
    );
  }
  return size;
}

function readActivation(fields: Fields): Activation {
  const name = textField(fields, "hidden_act") ?? "silu"; // the default of all classes of CONFIG_RULES
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation === undefined) throw unsupported(fields, "hidden_act", Object.keys(ACTIVATIONS).join(", "));
  return activation;
}

function readDtype(fields: Fields): CheckpointDtype | null {
  const key = spelling(fields, "torch_dtype", "dtype");
  const name = textField(fields, key);
  if (name === undefined) return null;
  const dtype = DTYPES.find((known) => name === known || name === `torch.${known}`);
  if (dtype === undefined) throw unsupported(fields, key, DTYPES.join(", "));
  return dtype;
}

/** A classifier, reward model or bare encoder has other weights at its end, and its config otherwise reads the same. */
function refuseOtherHeads(fields: Fields): void {
  for (const architecture of listField(fields, "architectures") ?? []) {
    if (typeof architecture !== "string") throw refused(fields, "architectures", "a list of strings");
    if (!architecture.endsWith("ForCausalLM")) {
      throw new UnsupportedModelError(
        `${FILE}: architectures has ${show(architecture)}, supported: names that end in ForCausalLM`,
      );
    }
  }
}

function refuseForeignKeys(fields: Fields, rules: ConfigRules, model_type: string): void {
  for (const [key, neutral] of Object.entries(FOREIGN_KEYS)) {
    const value = field(fields, key);
    if (value === undefined || neutral.includes(value)) continue;
    throw unsupported(fields, key, `for model_type "${model_type}" ${[...neutral, "none"].map(String).join(", ")}`);
  }
  for (const key of ["attention_bias", "mlp_bias"] as const) {
    if (booleanField(fields, key) === true && !rules.biases.includes(key)) {
      throw unsupported(fields, key, `for model_type "${model_type}" false`);
    }
  }
  // transformers writes 1 for a layer with rope
  if (listField(fields, "no_rope_layers")?.some((rotated) => rotated !== 1 && rotated !== true)) {
    throw unsupported(fields, "no_rope_layers", `for model_type "${model_type}" 1 for every layer`);
  }
}

/**
 * The window of every layer. `layer_types` goes before `max_window_layers`, as in transformers; a window that is written but switched off is none.
 *
 * Two statements that transformers can't run together, or of which it ignores one that other engines obey, are refused.
 */
function readWindows(fields: Fields, rules: ConfigRules, layers: number): readonly (number | null)[] {
  const types = readLayerTypes(fields, layers);
  const flag = booleanField(fields, "use_sliding_window");
  const written = optionalInteger(fields, "sliding_window", POSITIONS);
  switch (rules.window) {
    case "none": {
      if (written !== undefined && flag !== false) throw unsupported(fields, "sliding_window", "none");
      if (types?.includes("sliding_attention"))
        throw unsupported(fields, "layer_types", '"full_attention" for every layer');
      return Array.from({ length: layers }, () => null);
    }
    case "every layer": {
      const window = written ?? (hasField(fields, "sliding_window") ? null : 4096); // null is none, a key left out the class's 4096
      if (window !== null && flag === false) {
        throw refused(
          fields,
          "use_sliding_window",
          `true or none beside sliding_window, ${window}; set sliding_window to null`,
        );
      }
      if (types?.some((type) => (type === "sliding_attention") !== (window !== null))) {
        throw refused(
          fields,
          "layer_types",
          `every layer to be ${window === null ? '"full_attention"' : '"sliding_attention"'}`,
        );
      }
      return Array.from({ length: layers }, () => window);
    }
    case "picked layers": {
      const window = flag === true ? (written ?? (hasField(fields, "sliding_window") ? null : 4096)) : null; // as above
      if (window === null && types?.includes("sliding_attention")) {
        throw refused(fields, "layer_types", "no sliding layer where use_sliding_window or sliding_window is off");
      }
      const full = optionalInteger(fields, "max_window_layers", { min: 0, max: LAYERS.max }) ?? 28; // the classes' default
      return Array.from({ length: layers }, (_, layer) =>
        (types === undefined ? layer >= full : types[layer] === "sliding_attention") ? window : null,
      );
    }
    default:
      return rules.window satisfies never;
  }
}

function readLayerTypes(fields: Fields, layers: number): readonly unknown[] | undefined {
  const types = listField(fields, "layer_types");
  if (types === undefined) return undefined;
  if (types.length !== layers) throw refused(fields, "layer_types", `${layers}, one a layer`);
  const odd = types.find((type) => type !== "full_attention" && type !== "sliding_attention");
  if (odd !== undefined) {
    throw new UnsupportedModelError(
      `${FILE}: layer_types has ${show(odd)}, supported: "full_attention", "sliding_attention"`,
    );
  }
  return types;
}
