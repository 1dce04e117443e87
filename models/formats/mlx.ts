/**
 * MLX: `weight` U32 (rows, cols · bits / 32), each row one stream of bits, and `scales` (rows, cols / group_size).
 *
 *   affine:  w = scales · q + biases            2, 3, 4, 5, 6 or 8 bits, groups of 32, 64 or 128, scales and biases of one float type
 *   mxfp4:   w = e2m1(q) · 2^(scales − 127)     groups of 32, scales U8; mxfp8: e4m3(q)
 *   nvfp4:   w = e2m1(q) · e4m3(scales)         groups of 16, scales U8
 *
 * config.json states a width for all modules, and others, or none, for some by their paths. A module without `scales` is plain in any case.
 */
import type { LayoutName } from "../../kernels/formats/layout.ts";
import { type Fields, field, objectField, refused, unsupported } from "../configChecks.ts";
import { ModelFormatError } from "../errors.ts";
import { constantF32 } from "./derived.ts";
import { groupsOf, groupView, singleView } from "./groups.ts";
import { type MlxScheme, readScheme } from "./mlxScheme.ts";
import { turnedModule } from "./mlxTurned.ts";
import {
  checkDtype,
  checkShape,
  inGroups,
  type ModuleShape,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  scaleBits,
  scaleTypeOf,
  type Tensors,
} from "./stored.ts";

const OWN_KEYS = ["bits", "group_size", "mode", "quant_method"];
/** Modules whose path has no dot; any other key without one is an option of some other format. */
const TOP_MODULES = ["lm_head", "embed_tokens", "norm"];

/** Reads `quantization`. Throws UnsupportedModelError for other widths, groups and modes, and for keys that are neither its own nor a module's path. */
export function readMlx(fields: Fields): Quantization {
  const all = readScheme(fields);
  const modules = new Map<string, MlxScheme | null>();
  for (const key of Object.keys(fields.values)) {
    const value = field(fields, key);
    if (OWN_KEYS.includes(key) || value === undefined) continue;
    const isPath = key.includes(".") || TOP_MODULES.includes(key);
    if (!isPath) throw unsupported(fields, key, `${OWN_KEYS.slice(0, 3).join(", ")} and paths of modules`);
    if (typeof value === "boolean") modules.set(key, value ? all : null);
    else modules.set(key, readOverride(fields, key));
  }
  return {
    method: "mlx",
    summary: JSON.stringify([all, [...modules].sort(([a], [b]) => (a < b ? -1 : 1))]),
    names: [...modules.keys()],
    isDetail: () => false,
    module: (tensors, shape) => {
      const own = modules.get(shape.module);
      const scheme = own === undefined ? all : own;
      if (scheme === null || !isQuantized(tensors, shape)) return null;
      return (shape.transposed === "quantized too" ? turnedModule : mlxModule)(tensors, shape, scheme);
    },
  };
}

function readOverride(fields: Fields, key: string): MlxScheme {
  const override = objectField(fields, key);
  if (override === undefined) throw refused(fields, key, "an object, true or false");
  for (const inner of Object.keys(override.values)) {
    if (!OWN_KEYS.slice(0, 3).includes(inner)) throw unsupported(override, inner, "bits, group_size, mode");
  }
  return readScheme(override);
}

/** By its scales, or by what is senseless without: biases, and a weight of packed words. */
function isQuantized(tensors: Tensors, { module, weight }: ModuleShape): boolean {
  return ["scales", "biases"].some((name) => tensors.has(`${module}.${name}`)) || tensors.dtype(weight) === "U32";
}

function mlxModule(tensors: Tensors, shape: ModuleShape, scheme: MlxScheme): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const { bits, group_size, mode } = scheme;
  const [weight, scales] = ["weight", "scales"].map((name) => tensors.claim(`${module}.${name}`));
  const biases = mode === "affine" ? tensors.claim(`${module}.biases`) : undefined;
  if (weight === undefined || scales === undefined || (mode === "affine" && biases === undefined)) return undefined;
  if (cols % group_size !== 0) {
    const message = `${module}.weight: ${cols} columns, expected a multiple of group_size ${group_size}`;
    throw new ModelFormatError("CONFIG", message, { tensor: weight.name });
  }
  checkShape(weight, [rows, (cols * bits) / 32], `${bits} bits and group_size ${group_size} in config.json`);
  checkDtype(weight, "U32");
  for (const tensor of [scales, ...(biases === undefined ? [] : [biases])])
    checkShape(tensor, [rows, cols / group_size], `group_size ${group_size} in config.json`);
  const codes = rowMajor(weight, bits, cols);
  const groups = groupsOf(module, cols, group_size, 8);
  if (biases === undefined) {
    checkDtype(scales, "U8");
    const layout: LayoutName = bits === 8 ? "e4m3" : "e2m1";
    const scaleType = mode === "nvfp4" ? "e4m3" : "e8m0";
    const storage = { format: `mlx ${mode}`, layout, group: groups.group, scaleType } as const;
    const factor = singleView(constantF32(scales, 1), 32, rows);
    return { ...storage, codes, params: paramViews(storage, cols, { scale: groupView(scales, 8, groups), factor }) };
  }
  const scaleType = scaleTypeOf(scales);
  checkDtype(biases, scales.dtype);
  const layout: LayoutName = `affine${bits}`;
  const storage = { format: `mlx ${bits} bits, ${inGroups(group_size)}`, layout, group: groups.group, scaleType };
  const view = (tensor: typeof scales) => groupView(tensor, scaleBits(scaleType), groups);
  return { ...storage, codes, params: paramViews(storage, cols, { scale: view(scales), offset: view(biases) }) };
}
