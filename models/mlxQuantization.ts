/** MLX's affine quantization as config.json states it: a width for all modules, other widths or none for some of them. */
import { type Fields, field, integerField, objectField, refused, textField, unsupported } from "./configChecks.ts";

/** How a module's weight is stored: groups of `group_size` along a row, w = scale · q + bias, q of `bits` bits. */
export interface AffineModule {
  readonly format: "affine";
  readonly bits: 4 | 8;
  readonly group_size: 32 | 64 | 128;
}

/** The `quantization` object of an MLX checkpoint. */
export interface MlxQuantization {
  readonly method: "mlx";
  /** For every module that `modules` does not name. */
  readonly all: AffineModule;
  /** By module path, as "model.layers.0.self_attn.v_proj"; null: not quantized. */
  readonly modules: ReadonlyMap<string, AffineModule | null>;
}

const BITS = [4, 8] as const;
const GROUP_SIZES = [32, 64, 128] as const;
const OWN_KEYS = ["bits", "group_size", "mode", "quant_method"];
/** Modules whose path has no dot; any other key without one is an option of some other format. */
const TOP_MODULES = ["lm_head", "embed_tokens", "norm"];

/** Reads an MLX `quantization` object. Throws UnsupportedModelError for other widths, groups and modes, and for keys that are neither its own nor a module's path. */
export function readMlxQuantization(fields: Fields): MlxQuantization {
  const all = readModule(fields);
  const modules = new Map<string, AffineModule | null>();
  for (const key of Object.keys(fields.values)) {
    const value = field(fields, key);
    if (OWN_KEYS.includes(key) || value === undefined) continue;
    const isPath = key.includes(".") || TOP_MODULES.includes(key);
    if (!isPath) throw unsupported(fields, key, `${OWN_KEYS.slice(0, 3).join(", ")} and paths of modules`);
    if (typeof value === "boolean") modules.set(key, value ? all : null);
    else modules.set(key, readOverride(fields, key));
  }
  return { method: "mlx", all, modules };
}

function readOverride(fields: Fields, key: string): AffineModule {
  const override = objectField(fields, key);
  if (override === undefined) throw refused(fields, key, "an object, true or false");
  for (const inner of Object.keys(override.values)) {
    if (!OWN_KEYS.slice(0, 3).includes(inner)) throw unsupported(override, inner, "bits, group_size, mode");
  }
  return readModule(override);
}

function readModule(fields: Fields): AffineModule {
  const mode = textField(fields, "mode") ?? "affine"; // not written before MLX had a second one
  if (mode !== "affine") throw unsupported(fields, "mode", '"affine"');
  return { format: "affine", bits: oneOf(fields, "bits", BITS), group_size: oneOf(fields, "group_size", GROUP_SIZES) };
}

function oneOf<T extends number>(fields: Fields, key: string, choices: readonly T[]): T {
  const value = integerField(fields, key, { min: 1, max: 2 ** 20 });
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw unsupported(fields, key, choices.join(", "));
  return choice;
}
