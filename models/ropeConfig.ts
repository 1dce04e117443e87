/** Reads a config's rope: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of transformers 5, into one RopeConfig. */
import {
  booleanField,
  contradiction,
  type Fields,
  field,
  hasField,
  inRange,
  integerField,
  listField,
  MAX_POSITIONS,
  numberField,
  objectField,
  optionalNumber,
  refused,
  showKey,
  spelling,
  textField,
  unsupported,
} from "./configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import type { RopeConfig } from "./rope.ts";

/** How a family reads its rope. */
export interface RopeRules {
  /** `rope_theta` where it is not written. */
  readonly theta: number;
  /** Share of a head that is rotated where none is written; null: always the whole, and another share is refused. */
  readonly partial: number | null;
  /** Names of `rope_theta` and `partial_rotary_factor` at the top of the file, where they are not these. */
  readonly names?: { readonly theta: string; readonly partial: string };
  /** `original_max_position_embeddings` where it is not written; undefined: `max_position_embeddings`. */
  readonly originalLength?: number;
  /** Types that the family's class knows; undefined: all. */
  readonly types?: readonly RopeConfig["type"][];
  /** Old names of types, beside `su`. */
  readonly oldTypes?: Readonly<Record<string, RopeConfig["type"]>>;
  /** Whether `alpha` makes a dynamic rope one of a larger theta, whatever the length. */
  readonly alpha?: boolean;
}

/** What a rope needs to know of the rest of the config. */
export interface RopeShape {
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rules: RopeRules;
}

const THETA = { above: 1, max: 1e12 }; // published: 1e4 to 1e9; at 1 and below frequencies would not fall
const FACTOR = { min: 1, max: 1e6 }; // transformers: "must be a float >= 1"; published: up to 64
const POSITIVE = { above: 0, max: 1e6 };
const FULL = { above: 0, max: 1 };
const ALPHA = { min: 0, max: 1e9 };

/** The keys that each type of rope reads, beside those of every type. */
const KEYS = {
  default: [],
  linear: ["factor"],
  dynamic: ["factor"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor"],
  yarn: ["factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"],
  longrope: ["factor", "attention_factor", "short_factor", "long_factor"],
} as const satisfies Record<RopeConfig["type"], readonly string[]>;

/** Read for every type, or without a part in the result: `finetuned` is a note of the first YaRN uploads. */
const COMMON_KEYS = [
  "type",
  "rope_type",
  "rope_theta",
  "partial_rotary_factor",
  "original_max_position_embeddings",
  "finetuned",
];

/** Beside a dynamic rope with `alpha`, without a part in the result. */
const ALPHA_KEYS = ["alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"];

/**
 * The rope of a config. Both spellings may be there if they say the same.
 *
 * Throws ModelFormatError for numbers out of range and spellings that disagree; UnsupportedModelError for another type, and for a key
 * that the type does not read: transformers warns and ignores it, and nobody can tell what was meant.
 */
export function readRope(config: Fields, shape: RopeShape): RopeConfig {
  const written = (["rope_parameters", "rope_scaling"] as const).flatMap((key) => objectField(config, key) ?? []);
  return readRopeOf(config, written, shape);
}

/** The rope that the objects `written` state, and `config` beside them: for families that keep more than one. */
export function readRopeOf(config: Fields, written: readonly Fields[], shape: RopeShape): RopeConfig {
  const { rules, max_position_embeddings } = shape;
  const theta = agreed(config, written, "rope_theta", rules.names?.theta);
  const partial = agreed(config, written, "partial_rotary_factor", rules.names?.partial);
  const original = agreed(config, written, "original_max_position_embeddings");
  const common = {
    theta: theta === undefined ? rules.theta : numberField(theta.place, theta.key, THETA),
    rotary_dim: rotaryDim(partial, shape),
  };
  const originalLength =
    original === undefined
      ? (rules.originalLength ?? max_position_embeddings)
      : integerField(original.place, original.key, { min: 2, max: MAX_POSITIONS });
  const read = (fields: Fields) => readScaling(fields, common, rules, max_position_embeddings, originalLength);
  const [first, second] = written;
  if (first === undefined) return { type: "default", ...common };
  const rope = read(first);
  if (second !== undefined && JSON.stringify(read(second)) !== JSON.stringify(rope)) {
    throw contradiction(config, "rope_scaling", "rope_parameters");
  }
  return rope;
}

/** A field and where it is written. */
interface Stated {
  readonly place: Fields;
  readonly key: string;
}

/** The place that states `key`, at the top (there as `top`) or inside one of `written`; undefined if none does. Throws ModelFormatError if two disagree. */
function agreed(config: Fields, written: readonly Fields[], key: string, top = key): Stated | undefined {
  const all = [...written.map((place) => ({ place, key })), { place: config, key: top }];
  const stated = all.filter((at) => field(at.place, at.key) !== undefined);
  const [first] = stated;
  if (first === undefined) return undefined;
  const value = field(first.place, first.key);
  const other = stated.find((at) => field(at.place, at.key) !== value);
  if (other === undefined) return first;
  const said = `the same as ${other.place.path}${other.key}, ${String(field(other.place, other.key))}`;
  throw refused(first.place, first.key, `${said}; remove one`);
}

function rotaryDim(stated: Stated | undefined, { head_dim, rules }: RopeShape): number {
  const factor = stated === undefined ? (rules.partial ?? 1) : numberField(stated.place, stated.key, FULL);
  if (stated !== undefined && factor !== 1 && rules.partial === null) throw unsupported(stated.place, stated.key, "1");
  const rotary_dim = Math.trunc(head_dim * factor);
  if (rotary_dim >= 2 && rotary_dim % 2 === 0) return rotary_dim;
  const wanted = `an even number of rotated components, not ${rotary_dim} of head_dim ${head_dim}`;
  if (stated !== undefined) throw refused(stated.place, stated.key, wanted);
  throw new ModelFormatError("CONFIG", `config.json: head_dim is ${head_dim}, expected ${wanted}`);
}

function readScaling(
  fields: Fields,
  common: { readonly theta: number; readonly rotary_dim: number },
  rules: RopeRules,
  max_position_embeddings: number,
  original_max_position_embeddings: number,
): RopeConfig {
  const type = ropeType(fields, rules);
  const alpha = rules.alpha === true && type === "dynamic" ? optionalNumber(fields, "alpha", ALPHA) : undefined;
  if (alpha !== undefined && alpha !== 0) return withAlpha(fields, common, alpha);
  refuseOtherKeys(fields, type, rules);
  const half = common.rotary_dim / 2;
  switch (type) {
    case "default":
      return { type, ...common };
    case "linear":
      return { type, ...common, factor: numberField(fields, "factor", FACTOR) };
    case "dynamic":
      if (common.rotary_dim === 2) throw exponentless(fields);
      return { type, ...common, factor: numberField(fields, "factor", FACTOR), max_position_embeddings };
    case "llama3": {
      const low_freq_factor = numberField(fields, "low_freq_factor", POSITIVE);
      const high_freq_factor = numberField(fields, "high_freq_factor", { above: low_freq_factor, max: 1e6 });
      const factor = numberField(fields, "factor", FACTOR);
      return { type, ...common, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings };
    }
    case "yarn": {
      const ratio = max_position_embeddings / original_max_position_embeddings;
      // transformers: null is the ratio of the lengths, and a factor that is not written is an error
      const byRatio = hasField(fields, "factor") && field(fields, "factor") === undefined && ratio >= 1;
      const factor = byRatio ? ratio : numberField(fields, "factor", FACTOR);
      const beta_slow = optionalNumber(fields, "beta_slow", POSITIVE) ?? 1; // the paper's 1 and 32
      const beta_fast = optionalNumber(fields, "beta_fast", POSITIVE) ?? 32;
      if (beta_fast < beta_slow) throw refused(fields, "beta_fast", `at least beta_slow, ${beta_slow}`);
      return {
        type,
        ...common,
        factor,
        attention_factor: optionalNumber(fields, "attention_factor", POSITIVE) ?? yarnAttention(fields, factor),
        beta_fast,
        beta_slow,
        truncate: booleanField(fields, "truncate") ?? true,
        original_max_position_embeddings,
      };
    }
    case "longrope": {
      const ratio = max_position_embeddings / original_max_position_embeddings;
      const factor = optionalNumber(fields, "factor", FACTOR) ?? ratio;
      const worked = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original_max_position_embeddings));
      return {
        type,
        ...common,
        attention_factor: optionalNumber(fields, "attention_factor", POSITIVE) ?? worked,
        short_factor: factors(fields, "short_factor", half),
        long_factor: factors(fields, "long_factor", half),
        original_max_position_embeddings,
      };
    }
    default:
      return type satisfies never;
  }
}

/** Tencent's dynamic rope of a fixed `alpha`: only the base grows, once for all. Its configs carry YaRN's keys beside it, unused. */
function withAlpha(fields: Fields, common: { readonly theta: number; readonly rotary_dim: number }, alpha: number) {
  if (common.rotary_dim === 2) throw exponentless(fields);
  const { rotary_dim } = common;
  return { type: "default", rotary_dim, theta: common.theta * alpha ** (rotary_dim / (rotary_dim - 2)) } as const;
}

function exponentless({ file }: Fields): ModelFormatError {
  return new ModelFormatError(
    "CONFIG",
    `${file}: a dynamic rope over 2 components has no exponent, expected 4 or more`,
  );
}

function ropeType(fields: Fields, { types, oldTypes }: RopeRules): RopeConfig["type"] {
  const key = spelling(fields, "type", "rope_type");
  const written = textField(fields, key) ?? "default";
  const old = { su: "longrope", ...oldTypes } as const; // su: its name in Phi-3's first configs
  const name = Object.hasOwn(old, written) ? (old[written as keyof typeof old] ?? written) : written;
  if (!isRopeType(name) || (types !== undefined && !types.includes(name)))
    throw unsupported(fields, key, (types ?? Object.keys(KEYS)).join(", "));
  return name;
}

function isRopeType(name: string): name is RopeConfig["type"] {
  return Object.hasOwn(KEYS, name);
}

function refuseOtherKeys(fields: Fields, type: RopeConfig["type"], { alpha }: RopeRules): void {
  const known: readonly string[] = [...COMMON_KEYS, ...KEYS[type], ...(alpha === true ? ALPHA_KEYS : [])];
  for (const key of Object.keys(fields.values)) {
    const value = field(fields, key);
    if (known.includes(key) || value === undefined || (key === "factor" && value === 1)) continue;
    const where = `${fields.file}: ${fields.path}${showKey(key)}`;
    throw new UnsupportedModelError(`${where} has no meaning for rope type "${type}", supported: ${known.join(", ")}`);
  }
}

/** The attention factor of YaRN where the file states none: transformers' `get_mscale`, DeepSeek's ratio if both mscales are there. */
function yarnAttention(fields: Fields, factor: number): number {
  const mscale = optionalNumber(fields, "mscale", { min: 0, max: 1e6 }) ?? 0;
  const mscale_all_dim = optionalNumber(fields, "mscale_all_dim", { min: 0, max: 1e6 }) ?? 0;
  const scaled = (by: number) => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);
  return mscale !== 0 && mscale_all_dim !== 0 ? scaled(mscale) / scaled(mscale_all_dim) : scaled(1);
}

function factors(fields: Fields, key: string, length: number): readonly number[] {
  const list = listField(fields, key) ?? [];
  const numbers = list.filter((value): value is number => typeof value === "number" && inRange(value, POSITIVE));
  if (numbers.length !== length || list.length !== length)
    throw refused(fields, key, `${length} positive numbers, one a frequency`);
  return numbers;
}
