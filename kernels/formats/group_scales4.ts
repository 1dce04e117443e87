/**
 * `group_scale` for adapters that run both sides of a branch (fragments/fours_dot.ts): the numbers of GROUP_SCALE, of every type, from two loads.
 *
 * When it wins: where a load is two hundred instructions, and a branch for each type makes twelve of one. A vector is shifted lane by lane there, so
 * that shifts to the left are products.
 */
import { e4m3Code, PACKED, SHARED_SCALE } from "./group_scales.ts";
import type { Scaling } from "./layout.ts";

const HALF = "vec4f(unpack2x16float(w.x).x, unpack2x16float(w.y).x, unpack2x16float(w.z).x, unpack2x16float(w.w).x)";
const BIAS = HALF.replaceAll(").x", ").y");

/** `group_scale(at, g, groups, type)`, the functions that it needs, and `GroupScale`. Affine layouts have scales of f16, bf16 and f32. */
export const GROUP_SCALE4: Readonly<Record<Exclude<Scaling, "none">, string>> = {
  scale: /* wgsl */ `${e4m3Code((bits) => `* vec4u(${2 ** bits}u)`)}
struct GroupScale { scale: vec4f }
fn group_scale(at: u32, g: u32, groups: u32, scale_type: u32) -> GroupScale {
  let kind = scale_type & 7u;
  let shared_rows = kind == ${SHARED_SCALE}u;
  let word = select(select(g >> 2u, g >> 1u, kind < 2u), g, kind == 2u) + select(0u, 1u, kind == 4u);
  let first = scales[select(at + word * 8u, (at & ~7u) + word, shared_rows)];
  let shift = select(select(8u * (g & 3u), 16u * (g & 1u), kind < 2u), 0u, kind == 2u);
  let w = first >> vec4u(shift);
  let byte = w & vec4u(255u);
  var scale = select(bitcast<vec4f>(w), ${HALF}, kind == 0u);
  scale = select(scale, bitcast<vec4f>(w * vec4u(65536u)), kind == 1u);
  scale = select(scale, bitcast<vec4f>(byte * vec4u(${1 << 23}u)), kind == 3u);
  scale = select(scale, e4m3(byte) * bitcast<vec4f>(scales[at]), kind == 4u);
  return GroupScale(select(scale, vec4f(bitcast<f32>(first[g & 3u])), shared_rows));
}`,
  affine: /* wgsl */ `
struct GroupScale { scale: vec4f, bias: vec4f }
fn group_scale(at: u32, g: u32, groups: u32, scale_type: u32) -> GroupScale {
  let kind = scale_type & 7u;
  let packed = (scale_type & ${PACKED}u) != 0u;
  let whole = kind == 2u;
  let bits = (scale_type >> 4u) & 15u;
  // The offset lies behind the scale, whose word is its own too where both have 16 bits, or behind all scales.
  let zero_bit = g * bits;
  let scale_words = select((groups + 1u) >> 1u, groups, whole);
  let pair = select(g, 2u * g, whole);
  let word = select(pair, select(g >> 1u, g, whole), packed);
  let offset_word = select(select(pair, pair + 1u, whole), select(0u, scale_words + (zero_bit >> 5u), bits != 0u), packed);
  let first = scales[at + word * 8u];
  let second = scales[at + offset_word * 8u];
  let w = first >> vec4u(select(0u, 16u * (g & 1u), packed && !whole));
  var scale = select(${HALF}, bitcast<vec4f>(w * vec4u(65536u)), kind == 1u);
  scale = select(scale, bitcast<vec4f>(first), whole);
  let zero = (second >> vec4u(select(0u, zero_bit & 31u, packed))) & vec4u((1u << bits) - 1u);
  var bias = select(${BIAS}, bitcast<vec4f>(first & vec4u(0xffff0000u)), kind == 1u);
  bias = select(bias, bitcast<vec4f>(second), whole);
  bias = select(bias, -scale * vec4f(bitcast<vec4i>(zero + vec4u(scale_type >> 8u))), packed);
  return GroupScale(scale, bias);
}`,
};
