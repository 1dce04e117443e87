/** One normalised config for every model family: config.json in either spelling of transformers, checked in every number, with defaults filled in. */
import type { Activation } from "../kernels/fragments/act.ts";
import {
  booleanField,
  type Fields,
  field,
  fieldsOf,
  hasField,
  integerField,
  listField,
  MAX_POSITIONS,
  objectField,
  optionalInteger,
  optionalNumber,
  refused,
  show,
  spelling,
  textField,
  tokenIdsField,
  unsupported,
} from "./configChecks.ts";
import {
  type BiasRule,
  type ConfigRules,
  type Extras,
  FOREIGN_KEYS,
  type HeadShape,
  type LayerRopes,
  type RopeContext,
  type SizeKey,
} from "./configRules.ts";
import { readWindows } from "./configWindows.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import type { Quantization } from "./formats/stored.ts";
import { normalizeQuantization } from "./quantization.ts";
import { readRope } from "./ropeConfig.ts";

/** The type that a checkpoint says its plain weights have; each tensor states its own. */
export type CheckpointDtype = "float32" | "float16" | "bfloat16";

/** config.json, checked. Names of the hub are kept; what is ours to name is camelCase. */
export interface ModelConfig extends HeadShape, LayerRopes, Extras {
  readonly model_type: string;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  /** Of every norm: `rms_norm_eps`, `layer_norm_eps` and other names. */
  readonly normEps: number;
  readonly hidden_act: Activation;
  readonly tie_word_embeddings: boolean;
  /** Whether q, k and v have biases, o has one, and the projections of the MLP have. */
  readonly biases: { readonly qkv: boolean; readonly o: boolean; readonly mlp: boolean };
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
const SIZES: Readonly<Record<SizeKey, { readonly min: number; readonly max: number }>> = {
  hidden_size: { min: 1, max: 2 ** 17 }, // 18,432 is published
  intermediate_size: { min: 1, max: 2 ** 20 }, // 73,728
  num_hidden_layers: { min: 1, max: 2 ** 10 }, // 126
  num_attention_heads: { min: 1, max: 2 ** 10 }, // 128
  vocab_size: { min: 1, max: 2 ** 22 }, // 262,208
};
const HEAD_DIM = { min: 2, max: 2 ** 10 }; // 256
const POSITIONS = { min: 1, max: MAX_POSITIONS };

/** Names of transformers' activations, by ours: some have several. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_new: "gelu_pytorch_tanh",
  gelu_fast: "gelu_pytorch_tanh",
  gelu_pytorch_tanh: "gelu_pytorch_tanh",
  gelu_python_tanh: "gelu_pytorch_tanh",
  gelu_accurate: "gelu_pytorch_tanh",
  quick_gelu: "quick_gelu",
  relu: "relu",
  relu2: "relu2",
  linear: "linear",
};
const DTYPES: readonly CheckpointDtype[] = ["float32", "float16", "bfloat16"];

/** The `model_type` of a parsed config.json, before anything else is looked at. Throws ModelFormatError where there is none. */
export function modelTypeOf(raw: unknown): string {
  const fields = fieldsOf(FILE, raw);
  const model_type = textField(fields, "model_type");
  if (model_type === undefined || model_type === "") throw refused(fields, "model_type", "the name of a model family");
  return model_type;
}

/**
 * The config of a checkpoint, from parsed JSON, as its family's rules read it.
 *
 * Throws ModelFormatError, code CONFIG, for a value of the wrong type or out of range and for two spellings that disagree;
 * UnsupportedModelError for a legal value that ingle doesn't run. Both name the field and its value. Nothing was allocated by then.
 */
export function normalizeConfig(raw: unknown, rules: ConfigRules): ModelConfig {
  const model_type = modelTypeOf(raw);
  const fields = textFields(fieldsOf(FILE, raw), rules);
  refuseOtherHeads(fields, rules);
  const shape = readHeads(fields, rules);
  const num_hidden_layers = readSize(fields, rules, "num_hidden_layers");
  const max_position_embeddings =
    optionalInteger(fields, rules.names?.max_position_embeddings ?? "max_position_embeddings", POSITIONS) ??
    rules.max_position_embeddings;
  const windows = readWindows(fields, rules.window, num_hidden_layers);
  const ropes = readRopes(fields, rules, { ...shape, num_hidden_layers, max_position_embeddings, windows });
  const config: ModelConfig = {
    model_type,
    ...shape,
    intermediate_size:
      rules.width?.(fields) ?? readSize(fields, rules, "intermediate_size", rules.widthOf?.(shape.hidden_size)),
    num_hidden_layers,
    vocab_size: readSize(fields, rules, "vocab_size"),
    max_position_embeddings,
    normEps: optionalNumber(fields, rules.norm.key, { above: 0, max: 1 }) ?? rules.norm.eps,
    hidden_act: readActivation(fields, rules.activation),
    tie_word_embeddings: readTied(fields, rules),
    biases: {
      qkv: readBias(fields, rules.biases.qkv),
      o: readBias(fields, rules.biases.o),
      mlp: readBias(fields, rules.biases.mlp),
    },
    ...ropes,
    windows,
    bosTokenIds: tokenIdsField(fields, "bos_token_id", rules.bosTokenIds),
    eosTokenIds: tokenIdsField(fields, "eos_token_id", rules.eosTokenIds),
    padTokenIds: tokenIdsField(fields, "pad_token_id"),
    quantization: normalizeQuantization(fields),
    dtype: readDtype(fields),
    ...neutralExtras(shape),
    ...rules.extras?.(fields, { ...shape, num_hidden_layers }),
  };
  refuseForeignKeys(fields, model_type);
  return config;
}

function textFields(fields: Fields, { within }: ConfigRules): Fields {
  if (within === undefined) return fields;
  const text = objectField(fields, within);
  if (text === undefined) throw refused(fields, within, "an object with the text model's fields");
  return { ...fields, values: { ...fields.values, ...text.values } };
}

function neutralExtras({ head_dim }: HeadShape): Extras {
  return {
    embeddingMultiplier: 1,
    residualMultiplier: 1,
    attentionScale: 1 / Math.sqrt(head_dim),
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
  };
}

function readSize(fields: Fields, rules: ConfigRules, key: SizeKey, otherwise = rules.sizes?.[key]): number {
  const name = rules.names?.[key] ?? key;
  if (otherwise !== undefined && field(fields, name) === undefined) return otherwise;
  return integerField(fields, name, SIZES[key]);
}

function readHeads(fields: Fields, rules: ConfigRules): HeadShape {
  const hidden_size = readSize(fields, rules, "hidden_size");
  const num_attention_heads = readSize(fields, rules, "num_attention_heads");
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
  const written = optionalInteger(fields, "num_key_value_heads", SIZES.num_attention_heads);
  if (rules.num_key_value_heads === "always heads" && written !== undefined && written !== heads)
    throw unsupported(fields, "num_key_value_heads", `as many as attention heads, ${heads}`);
  if (written !== undefined) return written;
  // transformers: null means as many as heads in every family, a key left out means the class's default
  return hasField(fields, "num_key_value_heads") || typeof rules.num_key_value_heads === "string"
    ? heads
    : rules.num_key_value_heads;
}

function readHeadDim(fields: Fields, rules: ConfigRules, hidden_size: number, heads: number): number {
  const name = rules.names?.head_dim ?? "head_dim";
  const head_dim = optionalInteger(fields, name, HEAD_DIM);
  if (!hasField(fields, name) && typeof rules.head_dim === "number") return rules.head_dim; // null is hidden / heads
  const always = rules.head_dim === "always hidden / heads";
  if ((always || head_dim === undefined) && hidden_size % heads !== 0) {
    const other = always ? "" : ", or a head_dim";
    const [size, by] = [rules.names?.hidden_size ?? "hidden_size", rules.names?.num_attention_heads];
    throw refused(fields, size, `a multiple of ${by ?? "num_attention_heads"}, ${heads}${other}`);
  }
  if (always && head_dim !== undefined && head_dim !== hidden_size / heads)
    throw unsupported(fields, name, `hidden_size / num_attention_heads, ${hidden_size / heads}`);
  const size = head_dim ?? hidden_size / heads;
  if (size % 2 !== 0 || size > HEAD_DIM.max) {
    const from = head_dim === undefined ? "hidden_size / num_attention_heads" : name;
    throw new ModelFormatError(
      "CONFIG",
      `${FILE}: ${from} is ${size}, expected an even number of at most ${HEAD_DIM.max}`,
    );
  }
  return size;
}

function readRopes(fields: Fields, rules: ConfigRules, context: RopeContext): LayerRopes {
  if (rules.ropes !== undefined) return rules.ropes(fields, context);
  const layers = Array.from({ length: context.num_hidden_layers });
  if (rules.rope === null) return { ropes: [], layerRopes: layers.map(() => null) };
  return { ropes: [readRope(fields, { ...context, rules: rules.rope })], layerRopes: layers.map(() => 0) };
}

function readActivation(fields: Fields, { key, otherwise, gelu }: ConfigRules["activation"]): Activation {
  const name = textField(fields, key);
  if (name === undefined) return otherwise;
  if (name === "gelu" && gelu !== undefined) return gelu;
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation === undefined) throw unsupported(fields, key, Object.keys(ACTIVATIONS).join(", "));
  return activation;
}

function readTied(fields: Fields, { tied, tiedBefore }: ConfigRules): boolean {
  const key = tiedBefore === undefined ? "tie_word_embeddings" : spelling(fields, tiedBefore, "tie_word_embeddings");
  return booleanField(fields, key) ?? tied;
}

function readBias(fields: Fields, rule: BiasRule): boolean {
  return typeof rule === "boolean" ? rule : (booleanField(fields, rule.key) ?? rule.otherwise);
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
function refuseOtherHeads(fields: Fields, { architecture: other }: ConfigRules): void {
  for (const architecture of listField(fields, "architectures") ?? []) {
    if (typeof architecture !== "string") throw refused(fields, "architectures", "a list of strings");
    if (!architecture.endsWith("ForCausalLM") && architecture !== other) {
      const names = `names that end in ForCausalLM${other === undefined ? "" : `, ${other}`}`;
      throw new UnsupportedModelError(`${FILE}: architectures has ${show(architecture)}, supported: ${names}`);
    }
  }
}

/** What the family's rules did not ask for changes nothing in it, and must change nothing in another engine either. */
function refuseForeignKeys(fields: Fields, model_type: string): void {
  for (const [key, neutral] of Object.entries(FOREIGN_KEYS)) {
    if (fields.asked.has(key)) continue;
    const value = Object.hasOwn(fields.values, key) ? fields.values[key] : undefined;
    if (value === undefined || value === null || neutral.includes(value)) continue;
    // transformers writes 1 for a layer with rope
    if (key === "no_rope_layers" && Array.isArray(value) && value.every((has) => has === 1 || has === true)) continue;
    throw unsupported(fields, key, `for model_type "${model_type}" ${[...neutral, "none"].map(String).join(", ")}`);
  }
}
