/** Integers of compressed-tensors: `weight_packed`, a stream of bits a row, or `weight`, one a byte; scales, zeros and groups of columns. */
import type { TensorView } from "../matrix.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import type { WeightScheme } from "./compressedScheme.ts";
import { INPUT_TENSORS, rowScale, singleScale } from "./fp8.ts";
import { type Groups, groupsFit, groupsOf, groupView, storedGroups } from "./groups.ts";
import { columnGroups, columnOrder } from "./order.ts";
import {
  checkDtype,
  checkShape,
  inGroups,
  type ModuleShape,
  paramViews,
  rowMajor,
  type StoredModule,
  scaleBits,
  scaleTypeOf,
  type Tensors,
} from "./stored.ts";
import { allWords, bitsAt, readWords, unpackedIntegers } from "./unpacked.ts";

/** A module's tensors, and how their integers lie. */
interface Integers extends ZeroShape {
  readonly cols: number;
  readonly weight: CheckpointTensor;
  readonly scale: CheckpointTensor;
  /** undefined: codes are less 2^(bits − 1). */
  readonly zero: CheckpointTensor | undefined;
  readonly g_idx: CheckpointTensor | undefined;
  /** Bits from a row to the next. */
  readonly stride: number;
  /** Columns a group; undefined: a row, or the tensor. */
  readonly group: number | undefined;
  /** Groups of a row. */
  readonly count: number;
}

interface ZeroShape {
  readonly rows: number;
  readonly bits: number;
  readonly packed: boolean;
}

/** A module of pack-quantized, or of int-quantized; undefined where tensors are missing. */
export function compressedIntegers(
  tensors: Tensors,
  shape: ModuleShape,
  scheme: WeightScheme,
  packed: boolean,
): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const { bits, strategy } = scheme;
  const integers = claimed(tensors, shape, scheme, packed);
  if (integers === undefined) return undefined;
  const { weight, scale, zero, g_idx, stride, group: size, count } = integers;
  const scaleType = scaleTypeOf(scale);
  const format = `${scheme.format} ${bits} bits, ${strategy === "tensor" ? "one scale" : inGroups(scheme.group)}`;
  const bytes = g_idx === undefined ? undefined : tensors.detail(g_idx.name);
  const name = g_idx?.name ?? "";
  const inGroup = bytes === undefined ? undefined : columnGroups(name, bytes, { cols, count });
  const unpacked = () => asF32(format, integers, strategy === "group" ? count : 1, inGroup);
  const strideFits = !packed || stride % bits === 0; // else rows begin within an element
  if (!strideFits || !groupsFit(cols, size)) return unpacked();
  const groups = groupsOf(module, cols, size);
  const zeros =
    zero === undefined ? ({ bits: 0, add: half(bits) } as const) : ({ bits: bits === 4 ? 4 : 8, add: 0 } as const);
  const storage = { layout: `affine${bits}`, group: groups.group, scaleType, zeros } as const;
  const codes = packed ? rowMajor(weight, bits, cols, stride / bits) : rowMajor(weight, 8, cols, cols, { flip: SIGN });
  const params = paramViews(storage, cols, {
    scale: scaleView(scale, scaleBits(scaleType), { strategy, rows, groups }),
    offset: zero === undefined ? undefined : zeroView(zero, { bits, packed, groups }),
  });
  const order = bytes === undefined ? undefined : columnOrder(name, bytes, { cols, stored: groups.stored, count });
  return { ...storage, format: order === undefined ? format : `${format}, act-order`, order, codes, params, unpacked };
}

/** The sign of a byte: turned over, codes are from 0 on. */
const SIGN = 0x80;
const half = (bits: number): number => 2 ** (bits - 1); // codes are stored from 0 on

/** The tensors, claimed and checked; undefined where one is missing. */
function claimed(
  tensors: Tensors,
  { module, rows, cols, weight: plain }: ModuleShape,
  { bits, strategy, symmetric, anyOrder, group: columns }: WeightScheme,
  packed: boolean,
): Integers | undefined {
  const weight = tensors.claim(packed ? `${module}.weight_packed` : plain);
  const scale = tensors.claim(`${module}.weight_scale`);
  const zero = symmetric ? undefined : tensors.claim(`${module}.weight_zero_point`);
  if (symmetric) tensors.claimIfThere(`${module}.weight_zero_point`); // all zeros
  if (packed) tensors.claimIfThere(`${module}.weight_shape`);
  for (const name of INPUT_TENSORS) tensors.claimIfThere(`${module}.${name}`);
  const orderName = `${module}.weight_g_idx`;
  const g_idx = anyOrder ? tensors.claim(orderName) : tensors.claimIfThere(orderName);
  if (weight === undefined || scale === undefined || (!symmetric && zero === undefined)) return undefined;
  if (anyOrder && g_idx === undefined) return undefined;
  if (g_idx !== undefined) checkDtype(g_idx, "I32", "U32");
  const rowWords = Math.ceil((cols * bits) / 32);
  checkShape(weight, packed ? [rows, rowWords] : [rows, cols], `num_bits ${bits} in config.json`);
  checkDtype(weight, packed ? "I32" : "I8");
  const group = strategy === "group" ? columns : undefined;
  const count = storedGroups(cols, group);
  if (strategy === "group") checkShape(scale, [rows, count], "group_size in config.json");
  if (zero !== undefined) checkZeros(zero, { rows, bits, packed, count });
  const stride = packed ? rowWords * 32 : cols * 8;
  return { rows, cols, bits, packed, weight, scale, zero, g_idx, stride, group, count };
}

function asF32(
  format: string,
  { rows, cols, bits, packed, weight, scale, zero, stride, group, count }: Integers,
  groups: number,
  inGroup: ArrayLike<number> | undefined,
): StoredModule {
  const flip = packed ? 0 : SIGN;
  return unpackedIntegers(format, {
    from: weight,
    lines: "rows",
    rows,
    cols,
    scale,
    groupOf: (column) => inGroup?.[column] ?? Math.floor(column / (group ?? cols)),
    groups,
    async codes(first, end, signal) {
      const begin = Math.floor((first * stride) / 32);
      const words = await readWords(weight, begin, Math.ceil((end * stride) / 32), signal);
      return (row, column) => bitsAt(words, row * stride - begin * 32 + column * bits, bits) ^ flip;
    },
    async zeros(signal) {
      if (zero === undefined) return () => half(bits);
      const words = await allWords(zero, signal);
      const per = 32 / bits;
      return packed
        ? (row, g) => bitsAt(words, (Math.floor(row / per) * count + g) * 32 + (row % per) * bits, bits)
        : (row, g) => bitsAt(words, (row * count + g) * 8, 8) ^ flip;
    },
  });
}

function scaleView(
  scale: CheckpointTensor,
  bits: number,
  { strategy, rows, groups }: Pick<WeightScheme, "strategy"> & { readonly rows: number; readonly groups: Groups },
): TensorView {
  if (strategy === "tensor") return singleScale(scale, bits, rows);
  return strategy === "channel" ? rowScale(scale, bits, rows) : groupView(scale, bits, groups);
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
  if (!packed) return groupView(zero, 8, groups, { flip: SIGN });
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
