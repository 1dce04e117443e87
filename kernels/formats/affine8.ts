/**
 * affine8: 8-bit codes with a scale and a bias for each group of 32, 64 or 128 in a row.
 *
 *   w[r, c] = scale[r, c / group] · q[r, c] + bias[r, c / group],   q in 0 … 255
 *
 * Byte b of a word holds column b.
 */
import type { Layout } from "./layout.ts";

export const affine8: Layout = {
  name: "affine8",
  runWords: 8,
  scaling: "affine",
  eight: /* wgsl */ `
fn eight(run: u32, step: u32) -> Eight {
  let a = words[run + step * 16u];
  let b = words[run + step * 16u + 8u];
  return Eight(
    vec4f(a & vec4u(255u)), vec4f((a >> vec4u(8u)) & vec4u(255u)), vec4f((a >> vec4u(16u)) & vec4u(255u)), vec4f(a >> vec4u(24u)),
    vec4f(b & vec4u(255u)), vec4f((b >> vec4u(8u)) & vec4u(255u)), vec4f((b >> vec4u(16u)) & vec4u(255u)), vec4f(b >> vec4u(24u)));
}`,
  codeAt: /* wgsl */ `
fn code_at(run: u32, column: u32) -> f32 { return f32((words[run + (column >> 2u) * 32u] >> (8u * (column & 3u))) & 255u); }`,
  fields: (column) => [{ word: Math.floor(column / 4), bit: 8 * (column % 4), bits: 8, from: 0 }],
  value: (code) => code,
};
