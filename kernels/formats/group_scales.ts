/** Scales and biases of affine groups: their WGSL read and their CPU read, for the three scale types. */
import { bf16FromBits, f16FromBits, f32FromBits } from "./halves.ts";
import { BLOCK_ROWS, type MatrixShape, SCALE_TYPES, type ScaleType, scaleIndex } from "./layout.ts";

/** The number by which params name a scale type. */
export const scaleTypeCode = (scaleType: ScaleType): number => SCALE_TYPES.indexOf(scaleType);

/**
 * `group_scale(i, type)`: scale and bias of four rows, `i` the first vec4u of a group in `scales: array<vec4u>`.
 * `scale_step(type)`: vec4u from a group to the next.
 */
export const GROUP_SCALE = /* wgsl */ `
struct GroupScale { scale: vec4f, bias: vec4f }
fn group_scale(i: u32, scale_type: u32) -> GroupScale {
  let w = scales[i];
  if (scale_type == 0u) {
    let a = unpack2x16float(w.x); let b = unpack2x16float(w.y); let c = unpack2x16float(w.z); let d = unpack2x16float(w.w);
    return GroupScale(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y));
  }
  if (scale_type == 1u) {
    return GroupScale(bitcast<vec4f>(w << vec4u(16u)), bitcast<vec4f>(w & vec4u(0xffff0000u)));
  }
  return GroupScale(bitcast<vec4f>(w), bitcast<vec4f>(scales[i + 8u]));
}
fn scale_step(scale_type: u32) -> u32 { return select(8u, 16u, scale_type == 2u); }`;

/** Scale and bias of one row's group on the CPU. */
export function readScale(scales: Uint32Array, shape: MatrixShape, row: number, groupIndex: number) {
  const at = scaleIndex(shape, row, groupIndex);
  const word = scales[at] ?? Number.NaN;
  if (shape.scaleType === "f32")
    return { scale: f32FromBits(word), bias: f32FromBits(scales[at + BLOCK_ROWS] ?? Number.NaN) };
  const fromBits = shape.scaleType === "f16" ? f16FromBits : bf16FromBits;
  return { scale: fromBits(word & 0xffff), bias: fromBits(word >>> 16) };
}
