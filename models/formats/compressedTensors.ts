/**
 * compressed-tensors: which scheme of config.json's `config_groups` a module has, and its tensors in each of the formats.
 *
 *   pack-quantized          w = (q − zero) · weight_scale          `weight_packed` I32, a stream of bits a row; zeros packed along the outputs
 *   int-quantized           w = (q − zero) · weight_scale          `weight` I8
 *   float-quantized         w = e4m3(weight) · weight_scale        one scale for the tensor, a row or a block
 *   nvfp4-pack-quantized    w = e2m1(code) · e4m3(weight_scale) / weight_global_scale        groups of 16
 *   mxfp4-pack-quantized    w = e2m1(code) · 2^(weight_scale − 127)                          groups of 32
 *
 * Declared quantization of activations is not applied. A module whose `weight` is of a plain dtype is plain.
 */
import { type Fields, field, listField, objectField, show, unsupported } from "../configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import { compressedIntegers } from "./compressedIntegers.ts";
import { readWeights, type WeightScheme } from "./compressedScheme.ts";
import { constantF32, f32sOf } from "./derived.ts";
import { type Fp8Scales, fp8Module, INPUT_TENSORS } from "./fp8.ts";
import { groupsOf, groupView, singleView } from "./groups.ts";
import { matchesQuickly } from "./modulePattern.ts";
import {
  checkDtype,
  checkShape,
  type ModuleShape,
  PLAIN,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  type Tensors,
} from "./stored.ts";

/** A group of config.json: what it is for, and how those are stored. */
interface Group {
  readonly name: string;
  readonly targets: readonly Target[];
  readonly scheme: WeightScheme;
}

/** A module's path, a pattern from the path's beginning, or a class of modules. */
interface Target {
  readonly text: string;
  /** 2 for an exact path, 1 for a pattern, 0 for a class, undefined where it is not for the module. */
  rank(module: string): number | undefined;
}

/** Classes that every projection is of; embeddings are none of them. */
const CLASSES = ["Linear"];
const EMBEDDING = /(^|\.)(embed_tokens|embed_in|wte|wpe|word_embeddings|embed_positions)$/;
/** Fields that change how weights are stored, where they hold something. */
const FOREIGN = ["sparsity_config", "transform_config", "kv_cache_scheme"];

/** Reads `quantization_config` of compressed-tensors. */
export function readCompressedTensors(fields: Fields): Quantization {
  for (const key of FOREIGN) {
    const value = field(fields, key);
    const empty = typeof value === "object" && value !== null && Object.keys(value).length === 0;
    const dense = typeof value === "object" && value !== null && "format" in value && value.format === "dense";
    if (value !== undefined && !empty && !dense) throw unsupported(fields, key, "none");
  }
  const groups = readGroups(fields);
  const ignore = (listField(fields, "ignore") ?? []).map((entry) => target(fields, "ignore", entry));
  return {
    method: "compressed-tensors",
    summary: JSON.stringify([groups, ignore]),
    names: [],
    isDetail: (name) => /\.(weight_g_idx|weight_global_scale)$/.test(name),
    module: (tensors, shape) => {
      const ignored = ignore.some((entry) => entry.rank(shape.module) !== undefined);
      const scheme = ignored ? undefined : schemeOf(groups, shape.module);
      if (scheme === undefined || tensors.dtype(shape.weight) in PLAIN) return null;
      return READERS[scheme.format](tensors, shape, scheme);
    },
  };
}

function readGroups(fields: Fields): Group[] {
  const groups = objectField(fields, "config_groups");
  if (groups === undefined) throw unsupported(fields, "config_groups", "an object of groups");
  return Object.keys(groups.values).map((name) => {
    const group = objectField(groups, name);
    if (group === undefined) throw unsupported(groups, name, "an object");
    const targets = (listField(group, "targets") ?? []).map((entry) => target(group, "targets", entry));
    return { name, targets, scheme: readWeights(fields, group) };
  });
}

function target(fields: Fields, key: string, entry: unknown): Target {
  if (typeof entry !== "string") throw unsupported(fields, key, "paths, patterns and classes of modules as text");
  if (entry.startsWith("re:")) {
    const pattern = patternOf(fields, key, entry.slice(3));
    return { text: entry, rank: (module) => (pattern.test(module) ? 1 : undefined) };
  }
  const isClass = CLASSES.includes(entry);
  return {
    text: entry,
    rank: (module) => {
      if (isClass) return EMBEDDING.test(module) ? undefined : 0;
      return module === entry ? 2 : undefined;
    },
  };
}

function patternOf(fields: Fields, key: string, text: string): RegExp {
  const where = `${fields.file}: ${fields.path}${key} has the pattern ${show(text)}`;
  if (!matchesQuickly(text)) {
    const supported = "up to 6 repetitions, none of a group with repetitions or alternatives inside";
    throw new UnsupportedModelError(`${where}, supported: ${supported}`);
  }
  try {
    return new RegExp(`^(?:${text})`, "u");
  } catch {
    // Python escapes what needs none, which only the older grammar of JavaScript takes.
  }
  try {
    return new RegExp(`^(?:${text})`);
  } catch (cause) {
    throw new UnsupportedModelError(`${where}, supported: patterns that JavaScript reads as Python does`, { cause });
  }
}

/** The scheme of the group that names the module most closely. Throws UnsupportedModelError where two groups do so and differ. */
function schemeOf(groups: readonly Group[], module: string): WeightScheme | undefined {
  let best: { rank: number; group: Group } | undefined;
  for (const group of groups) {
    for (const { rank: rankOf } of group.targets) {
      const rank = rankOf(module) ?? -1;
      if (rank < 0 || rank < (best?.rank ?? 0)) continue;
      if (
        best !== undefined &&
        best.rank === rank &&
        JSON.stringify(best.group.scheme) !== JSON.stringify(group.scheme)
      ) {
        const message = `config.json: quantization_config.config_groups: ${module} is in ${best.group.name} and in ${group.name}`;
        throw new UnsupportedModelError(`${message}, supported: one scheme a module`);
      }
      best = { rank, group };
    }
  }
  return best?.group.scheme;
}

type Reader = (tensors: Tensors, shape: ModuleShape, scheme: WeightScheme) => StoredModule | undefined;

const READERS: Readonly<Record<WeightScheme["format"], Reader>> = {
  "pack-quantized": (tensors, shape, scheme) => compressedIntegers(tensors, shape, scheme, true),
  "int-quantized": (tensors, shape, scheme) => compressedIntegers(tensors, shape, scheme, false),
  "float-quantized": (tensors, shape, scheme) =>
    fp8Module(tensors, shape, `${shape.module}.weight_scale`, fp8Scales(shape.module, scheme)),
  "nvfp4-pack-quantized": (tensors, shape) => floats4(tensors, shape, 16),
  "mxfp4-pack-quantized": (tensors, shape) => floats4(tensors, shape, 32),
};

function fp8Scales(module: string, { strategy, block }: WeightScheme): Fp8Scales {
  if (strategy === "tensor") return { by: "tensor" };
  if (strategy === "channel") return { by: "row" };
  if (strategy === "block" && block !== undefined) return { by: "block", block };
  throw new UnsupportedModelError(
    `${module}: strategy ${strategy} of float-quantized weights, supported: tensor, channel, block`,
  );
}

/** e2m1 codes, two a byte, the first in the low half. */
function floats4(tensors: Tensors, { module, rows, cols }: ModuleShape, block: 16 | 32): StoredModule | undefined {
  const packed = tensors.claim(`${module}.weight_packed`);
  const scale = tensors.claim(`${module}.weight_scale`);
  const global = block === 16 ? tensors.claim(`${module}.weight_global_scale`) : undefined;
  for (const name of INPUT_TENSORS) tensors.claimIfThere(`${module}.${name}`);
  if (packed === undefined || scale === undefined || (block === 16 && global === undefined)) return undefined;
  if (cols % block !== 0)
    throw new ModelFormatError("CONFIG", `${module}: ${cols} columns, expected a multiple of ${block}`);
  checkShape(packed, [rows, cols / 2]);
  checkDtype(packed, "U8");
  checkShape(scale, [rows, cols / block]);
  const groups = groupsOf(module, cols, block, 8);
  const view = groupView(scale, 8, groups);
  if (global === undefined) {
    checkDtype(scale, "U8", "F8_E8M0");
    const storage = { layout: "e2m1", group: groups.group, scaleType: "e8m0" } as const;
    return {
      ...storage,
      format: "mxfp4-pack-quantized",
      codes: rowMajor(packed, 4, cols),
      params: paramViews(storage, cols, { scale: view }),
    };
  }
  checkDtype(scale, "F8_E4M3");
  checkDtype(global, "F32");
  const bytes = tensors.detail(global.name);
  const [whole = Number.NaN] = bytes === undefined ? [] : f32sOf(bytes);
  const storage = { layout: "e2m1", group: groups.group, scaleType: "e4m3" } as const;
  const factor = singleView(constantF32(global, Math.fround(1 / whole)), 32, rows);
  return {
    ...storage,
    format: "nvfp4-pack-quantized",
    codes: rowMajor(packed, 4, cols),
    params: paramViews(storage, cols, { scale: view, factor }),
  };
}
