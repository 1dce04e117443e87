/** How a checkpoint's weights are quantized, by `quantization` (MLX) or `quantization_config` (everyone else): one reader a method, everything else refused. */
import { contradiction, type Fields, field, objectField, textField, unsupported } from "./configChecks.ts";
import { type AffineModule, type MlxQuantization, readMlxQuantization } from "./mlxQuantization.ts";

/** The quantization of a whole checkpoint; one member a method. */
export type Quantization = MlxQuantization;

/** How one module is stored; one member a format. */
export type ModuleQuantization = AffineModule;

/** A method is a row: the name in `quant_method` and its reader. MLX writes no `quant_method`. */
const METHODS: Readonly<Record<string, (fields: Fields) => Quantization>> = {
  mlx: readMlxQuantization,
};

/**
 * The quantization of a config, or null for plain weights.
 *
 * Throws UnsupportedModelError, naming field and value, for every method, width and option that ingle does not read: a checkpoint is never
 * decoded by a guess. Throws ModelFormatError if `quantization` and `quantization_config` are both there and differ.
 */
export function normalizeQuantization(config: Fields): Quantization | null {
  const newer = objectField(config, "quantization_config");
  const own = objectField(config, "quantization");
  const [first, second] = [own, newer].filter((fields) => fields !== undefined).map(readMethod);
  if (first === undefined) return null;
  if (second !== undefined && canonical(first) !== canonical(second)) {
    throw contradiction(config, "quantization", "quantization_config");
  }
  return first;
}

/**
 * How the weight of `module` ("model.layers.0.mlp.up_proj", no ".weight") is stored if it is quantized, or null if it is plain.
 *
 * As in MLX, a module that config.json does not exempt may still be plain: then the checkpoint has no `${module}.scales`.
 */
export function quantizationOf(quantization: Quantization | null, module: string): ModuleQuantization | null {
  if (quantization === null) return null;
  const stated = quantization.modules.get(module);
  return stated === undefined ? quantization.all : stated;
}

/**
 * The paths that config.json states a width for and that are none of `modules`, in the file's order.
 *
 * Such a width is meant for a module under another prefix, which would silently get the width of all: a loader refuses it.
 */
export function unmatchedModules(quantization: Quantization | null, modules: Iterable<string>): readonly string[] {
  if (quantization === null) return [];
  const known = new Set(modules);
  return [...quantization.modules.keys()].filter((module) => !known.has(module));
}

function readMethod(fields: Fields): Quantization {
  const method = field(fields, "quant_method") === undefined ? "mlx" : textField(fields, "quant_method");
  const read = method !== undefined && Object.hasOwn(METHODS, method) ? METHODS[method] : undefined;
  if (read === undefined)
    throw unsupported(fields, "quant_method", `${Object.keys(METHODS).join(", ")}, or none as MLX writes it`);
  return read(fields);
}

function canonical(quantization: Quantization): string {
  return JSON.stringify([quantization.all, [...quantization.modules].sort(([a], [b]) => (a < b ? -1 : 1))]);
}
