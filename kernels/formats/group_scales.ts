/**
 * Parameters of groups: how scales, biases and zeros of a row are read, in WGSL and on the CPU, for every type of scale.
 *
 * A row's parameters are a few words, [rows/32][param words][32]. A scale and its bias share a word where both have 16 bits, or follow each other. Where the offset is
 * an integer zero, all scales come first, packed by their own width, then all zeros; e4m3 scales have the row's f32 factor before them. `paramPlaces` (layout.ts) says where.
 */
import { bf16FromBits, f16FromBits, f32FromBits } from "./halves.ts";
import {
  BLOCK_ROWS,
  groupCount,
  type Layout,
  type MatrixShape,
  paramIndex,
  paramPlaces,
  type ScaleType,
  type Scaling,
} from "./layout.ts";

const SCALE_TYPE_CODES: Readonly<Record<ScaleType, number>> = { f16: 0, bf16: 1, f32: 2, e8m0: 3, e4m3: 4 };
/** Of rows that share a scale. */
export const SHARED_SCALE = 5;
/** Set where no bias lies beside the scale. */
export const PACKED = 8;

/** The number by which params tell of scale type and offset: type, whether packed, bits of a zero from bit 4 on, what is added to it from bit 8 on. */
export function scaleTypeCode(
  { scaling }: Pick<Layout, "scaling">,
  shape: Pick<MatrixShape, "scaleType" | "zeros" | "sharedRows">,
): number {
  const code = shape.sharedRows ? SHARED_SCALE : SCALE_TYPE_CODES[shape.scaleType];
  if (scaling === "affine" && shape.zeros === undefined) return code;
  const { bits, add } = shape.zeros ?? { bits: 0, add: 0 };
  return code | PACKED | (bits << 4) | (add << 8);
}

/** `e4m3`: numbers of e4m3 codes, a vec4u of bytes at once: exact, subnormals too. `left` is how words are shifted to the left by some bits. */
export const e4m3Code = (left: (bits: number) => string): string => /* wgsl */ `
fn e4m3(code: vec4u) -> vec4f {
  // The exponent of 4 bits becomes one of 8 that is never 0, so that no adapter flushes it; where it was 0, the hidden bit is taken away again.
  let x = bitcast<vec4f>(((code & vec4u(127u)) ${left(20)}) + vec4u(${120 << 23}u));
  let size = select(x, x + x - vec4f(0.015625), (code & vec4u(120u)) == vec4u());
  return bitcast<vec4f>(bitcast<vec4u>(size) | ((code & vec4u(128u)) ${left(24)}));
}`;

const PACKED_SCALE = /* wgsl */ `${e4m3Code((bits) => `<< vec4u(${bits}u)`)}
fn packed_scale(at: u32, g: u32, scale_type: u32) -> vec4f {
  switch (scale_type & 7u) {
    case 0u: {
      let w = (scales[at + (g >> 1u) * 8u] >> vec4u(16u * (g & 1u))) & vec4u(0xffffu);
      return vec4f(unpack2x16float(w.x).x, unpack2x16float(w.y).x, unpack2x16float(w.z).x, unpack2x16float(w.w).x);
    }
    case 1u: { return bitcast<vec4f>((scales[at + (g >> 1u) * 8u] >> vec4u(16u * (g & 1u))) << vec4u(16u)); }
    case 2u: { return bitcast<vec4f>(scales[at + g * 8u]); }
    case 5u: { return vec4f(bitcast<f32>(scales[(at & ~7u) + (g >> 2u)][g & 3u])); }
    case 3u: { return bitcast<vec4f>(((scales[at + (g >> 2u) * 8u] >> vec4u(8u * (g & 3u))) & vec4u(255u)) << vec4u(23u)); }
    default: {
      let byte = (scales[at + ((g >> 2u) + 1u) * 8u] >> vec4u(8u * (g & 3u))) & vec4u(255u);
      return e4m3(byte) * bitcast<vec4f>(scales[at]);
    }
  }
}`;

const ZEROS = /* wgsl */ `
/** Words of a row's scales, where none has a bias. */
fn scale_words(groups: u32, scale_type: u32) -> u32 {
  switch (scale_type & 7u) {
    case 0u, 1u: { return (groups + 1u) >> 1u; }
    case 2u: { return groups; }
    case 3u: { return (groups + 3u) >> 2u; }
    default: { return ((groups + 3u) >> 2u) + 1u; }
  }
}
fn group_zero(at: u32, g: u32, groups: u32, scale_type: u32) -> vec4f {
  let bits = (scale_type >> 4u) & 15u;
  var zero = vec4u();
  if (bits != 0u) {
    let bit = g * bits;
    zero = (scales[at + (scale_words(groups, scale_type) + (bit >> 5u)) * 8u] >> vec4u(bit & 31u)) & vec4u((1u << bits) - 1u);
  }
  return vec4f(zero + vec4u(scale_type >> 8u));
}`;

/**
 * `group_scale(at, g, groups, type)`: scale and bias of four rows for group g of `groups`; `at` is the first vec4u of the rows' words in
 * `scales: array<vec4u>`, whose next word is 8 vec4u further. `weight_group` gives what single weights are made of: scale · (code − zero) + bias,
 * where one of zero and bias is 0, so that a zero stays an integer.
 */
export const GROUP_SCALE: Readonly<Record<Exclude<Scaling, "none">, string>> = {
  scale: /* wgsl */ `${PACKED_SCALE}
struct GroupScale { scale: vec4f, bias: vec4f }
fn group_scale(at: u32, g: u32, groups: u32, scale_type: u32) -> GroupScale {
  return GroupScale(packed_scale(at, g, scale_type), vec4f());
}
struct WeightGroup { scale: vec4f, zero: vec4f, bias: vec4f }
fn weight_group(at: u32, g: u32, groups: u32, scale_type: u32) -> WeightGroup {
  return WeightGroup(packed_scale(at, g, scale_type), vec4f(), vec4f());
}`,
  affine: /* wgsl */ `${PACKED_SCALE}${ZEROS}
struct GroupScale { scale: vec4f, bias: vec4f }
fn group_scale(at: u32, g: u32, groups: u32, scale_type: u32) -> GroupScale {
  if (scale_type == 0u) {
    let w = scales[at + g * 8u];
    let a = unpack2x16float(w.x); let b = unpack2x16float(w.y); let c = unpack2x16float(w.z); let d = unpack2x16float(w.w);
    return GroupScale(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y));
  }
  if (scale_type == 1u) {
    let w = scales[at + g * 8u];
    return GroupScale(bitcast<vec4f>(w << vec4u(16u)), bitcast<vec4f>(w & vec4u(0xffff0000u)));
  }
  if (scale_type == 2u) { return GroupScale(bitcast<vec4f>(scales[at + g * 16u]), bitcast<vec4f>(scales[at + g * 16u + 8u])); }
  let scale = packed_scale(at, g, scale_type);
  return GroupScale(scale, -scale * group_zero(at, g, groups, scale_type));
}
struct WeightGroup { scale: vec4f, zero: vec4f, bias: vec4f }
fn weight_group(at: u32, g: u32, groups: u32, scale_type: u32) -> WeightGroup {
  let gs = group_scale(at, g, groups, scale_type);
  if ((scale_type & ${PACKED}u) == 0u) { return WeightGroup(gs.scale, vec4f(), gs.bias); }
  return WeightGroup(gs.scale, group_zero(at, g, groups, scale_type), vec4f());
}`,
};

/**
 * `early_word(at, g, type)`: the word of a scale and a bias of 16 bits, to be read a group ahead, so that nobody waits for it behind the products;
 * `early_scale(word, …)`: `group_scale` with it. Of affine layouts; other types are read late, and have the row's first word here.
 */
export const EARLY_SCALE = /* wgsl */ `
fn early_word(at: u32, g: u32, scale_type: u32) -> vec4u { return scales[select(at, at + g * 8u, scale_type < 2u)]; }
fn early_scale(w: vec4u, at: u32, g: u32, groups: u32, scale_type: u32) -> GroupScale {
  if (scale_type == 0u) {
    let a = unpack2x16float(w.x); let b = unpack2x16float(w.y); let c = unpack2x16float(w.z); let d = unpack2x16float(w.w);
    return GroupScale(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y));
  }
  if (scale_type == 1u) { return GroupScale(bitcast<vec4f>(w << vec4u(16u)), bitcast<vec4f>(w & vec4u(0xffff0000u))); }
  return group_scale(at, g, groups, scale_type);
}`;

/** Parameters of one row's group on the CPU: w = scale · (q − zero) + bias. */
export interface GroupParams {
  readonly scale: number;
  readonly zero: number;
  readonly bias: number;
}

/** The number of an e4m3 code. */
export function e4m3FromBits(code: number): number {
  const exponent = (code >> 3) & 15;
  const size = exponent === 0 ? (code & 7) / 512 : (1 + (code & 7) / 8) * 2 ** (exponent - 7);
  return code & 128 ? -size : size;
}

const FROM_BITS: Readonly<Record<ScaleType, (bits: number) => number>> = {
  f16: f16FromBits,
  bf16: bf16FromBits,
  f32: f32FromBits,
  e8m0: (bits) => f32FromBits(bits << 23),
  e4m3: e4m3FromBits,
};

/** Reads what `group_scale` reads. */
export function readScale(
  layout: Layout,
  scales: Uint32Array,
  shape: MatrixShape,
  row: number,
  group: number,
): GroupParams {
  const places = paramPlaces(layout, shape);
  const bitsAt = (first: number, step: number) => {
    const bit = first + group * step;
    const word = scales[paramIndex(layout, shape, row, Math.floor(bit / 32))] ?? Number.NaN;
    return { word, shift: bit % 32 };
  };
  const read = (first: number, step: number, bits: number) => {
    const { word, shift } = bitsAt(first, step);
    return bits === 32 ? word : (word >>> shift) & (2 ** bits - 1);
  };
  const width = { f16: 16, bf16: 16, f32: 32, e8m0: 8, e4m3: 8 }[shape.scaleType];
  const fromBits = FROM_BITS[shape.scaleType];
  if (shape.sharedRows) {
    const word = paramIndex(layout, shape, row - (row % BLOCK_ROWS), 0) + group;
    return { scale: fromBits(scales[word] ?? Number.NaN), zero: 0, bias: 0 };
  }
  const factor = places.factor === undefined ? 1 : f32FromBits(scales[paramIndex(layout, shape, row, 0)] ?? Number.NaN);
  const scale = Math.fround(fromBits(read(places.scale.first, places.scale.step, width)) * factor);
  if (group >= groupCount(shape)) throw new RangeError(`group ${group} of ${groupCount(shape)}`);
  if (layout.scaling !== "affine") return { scale, zero: 0, bias: 0 };
  if (shape.zeros === undefined) {
    const bias = places.offset === undefined ? 0 : fromBits(read(places.offset.first, places.offset.step, width));
    return { scale, zero: 0, bias };
  }
  const stored = places.offset === undefined ? 0 : read(places.offset.first, places.offset.step, shape.zeros.bits);
  return { scale, zero: stored + shape.zeros.add, bias: 0 };
}
