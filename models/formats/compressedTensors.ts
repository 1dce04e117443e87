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
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { readWeights, type WeightScheme } from "./compressedScheme.ts";
import { constantF32, f32sOf } from "./derived.ts";
import { type Fp8Scales, fp8Module, INPUT_TENSORS, rowScale, singleScale } from "./fp8.ts";
import { type Groups, groupsFit, groupsOf, groupView, singleView, storedGroups } from "./groups.ts";
import { columnGroups, columnOrder } from "./order.ts";
import {
  checkDtype,
  checkShape,
  inGroups,
  type ModuleShape,
  PLAIN,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  scaleBits,
  scaleTypeOf,
  type Tensors,
} from "./stored.ts";
import { allWords, bitsAt, readWords, unpackedIntegers } from "./unpacked.ts";

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
  try {
    return new RegExp(`^(?:${text})`, "u");
  } catch {
    // Python escapes what needs none, which only the older grammar of JavaScript takes.
  }
  try {
    return new RegExp(`^(?:${text})`);
  } catch (cause) {
    const message = `${fields.file}: ${fields.path}${key} has the pattern ${show(text)}, supported: patterns that JavaScript reads as Python does`;
    throw new UnsupportedModelError(message, { cause });
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
  "pack-quantized": (tensors, shape, scheme) => integers(tensors, shape, scheme, true),
  "int-quantized": (tensors, shape, scheme) => integers(tensors, shape, scheme, false),
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

function integers(
  tensors: Tensors,
  shape: ModuleShape,
  scheme: WeightScheme,
  packed: boolean,
): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const { bits, strategy, symmetric } = scheme;
  const weight = tensors.claim(packed ? `${module}.weight_packed` : shape.weight);
  const scale = tensors.claim(`${module}.weight_scale`);
  const zero = symmetric ? undefined : tensors.claim(`${module}.weight_zero_point`);
  if (symmetric) tensors.claimIfThere(`${module}.weight_zero_point`); // all zeros
  if (packed) tensors.claimIfThere(`${module}.weight_shape`);
  for (const name of INPUT_TENSORS) tensors.claimIfThere(`${module}.${name}`);
  const orderName = `${module}.weight_g_idx`;
  const g_idx = scheme.anyOrder ? tensors.claim(orderName) : tensors.claimIfThere(orderName);
  if (weight === undefined || scale === undefined || (!symmetric && zero === undefined)) return undefined;
  if (scheme.anyOrder && g_idx === undefined) return undefined;
  const rowWords = Math.ceil((cols * bits) / 32);
  checkShape(weight, packed ? [rows, rowWords] : [rows, cols], `num_bits ${bits} in config.json`);
  checkDtype(weight, packed ? "I32" : "I8");
  const size = strategy === "group" ? scheme.group : undefined;
  const count = storedGroups(cols, size);
  if (strategy === "group") checkShape(scale, [rows, count], "group_size in config.json");
  if (zero !== undefined) checkZeros(zero, { rows, bits, packed, count });
  const scaleType = scaleTypeOf(scale);
  const half = 2 ** (bits - 1); // codes are stored from 0 on
  const format = `${scheme.format} ${bits} bits, ${strategy === "tensor" ? "one scale" : inGroups(scheme.group)}`;
  const bytes = g_idx === undefined ? undefined : tensors.detail(g_idx.name);
  const inGroup = bytes === undefined ? undefined : columnGroups(orderName, bytes, { cols, count });
  const stride = packed ? rowWords * 32 : cols * 8; // bits
  const flip = packed ? 0 : 0x80;
  const unpacked = () =>
    unpackedIntegers(format, {
      from: weight,
      lines: "rows",
      rows,
      cols,
      scale,
      groupOf: (column) => inGroup?.[column] ?? Math.floor(column / (size ?? cols)),
      groups: strategy === "group" ? count : 1,
      async codes(first, end, signal) {
        const begin = Math.floor((first * stride) / 32);
        const words = await readWords(weight, begin, Math.ceil((end * stride) / 32), signal);
        return (row, column) => bitsAt(words, row * stride - begin * 32 + column * bits, bits) ^ flip;
      },
      async zeros(signal) {
        if (zero === undefined) return () => half;
        const words = await allWords(zero, signal);
        const per = 32 / bits;
        return packed
          ? (row, g) => bitsAt(words, (Math.floor(row / per) * count + g) * 32 + (row % per) * bits, bits)
          : (row, g) => bitsAt(words, (row * count + g) * 8, 8) ^ flip;
      },
    });
  const strideFits = !packed || (rowWords * 32) % bits === 0; // else rows begin within an element
  if (!strideFits || !groupsFit(cols, size)) return unpacked();
  const groups = groupsOf(module, cols, size);
  const zeros =
    zero === undefined ? ({ bits: 0, add: half } as const) : ({ bits: bits === 4 ? 4 : 8, add: 0 } as const);
  const storage = { layout: `affine${bits}`, group: groups.group, scaleType, zeros } as const;
  const width = scaleBits(scaleType);
  const scaleView =
    strategy === "tensor"
      ? singleScale(scale, width, rows)
      : strategy === "channel"
        ? rowScale(scale, width, rows)
        : groupView(scale, width, groups);
  const codes = packed
    ? rowMajor(weight, bits, cols, (rowWords * 32) / bits)
    : rowMajor(weight, 8, cols, cols, { flip: 0x80 });
  const offset = zero === undefined ? undefined : zeroView(zero, { bits, packed, groups });
  const order = bytes === undefined ? undefined : columnOrder(orderName, bytes, { cols, stored: groups.stored, count });
  const params = paramViews(storage, cols, { scale: scaleView, offset });
  return { ...storage, format: order === undefined ? format : `${format}, act-order`, order, codes, params, unpacked };
}

interface ZeroShape {
  readonly rows: number;
  readonly bits: number;
  readonly packed: boolean;
}

/** Zeros (rows, groups): packed along the rows, or one a byte. */
function checkZeros(
  zero: CheckpointTensor,
  { rows, bits, packed, count }: ZeroShape & { readonly count: number },
): void {
  checkDtype(zero, packed ? "I32" : "I8");
  if (packed) checkShape(zero, [Math.ceil((rows * bits) / 32), count], `num_bits ${bits} in config.json`);
  else checkShape(zero, [rows, count]);
}

function zeroView(
  zero: CheckpointTensor,
  { bits, packed, groups }: Omit<ZeroShape, "rows"> & { readonly groups: Groups },
) {
  if (!packed) return groupView(zero, 8, groups, { flip: 0x80 });
  const per = 32 / bits;
  const span = groups.stored / groups.group;
  const step = per * groups.storedCount;
  return rowMajor(zero, bits, groups.count, step, {
    rowTile: per,
    rowTileStride: step,
    rowStride: 1,
    columnTile: span,
    columnTileStride: per,
    outer: { by: "row", span: per, step, rows: 0, elements: 0 },
  });
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
