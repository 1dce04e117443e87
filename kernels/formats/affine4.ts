/**
 * affine4: 4-bit codes with a scale and a bias for each group of 32, 64 or 128 in a row.
 *
 *   w[r, c] = scale[r, c / group] · q[r, c] + bias[r, c / group],   q in 0 … 15
 *
 * Byte b of a word holds column b in its low nibble and column 4 + b in its high one, so that one mask leaves four
 * codes in bytes, which GPUs turn into floats in one instruction each.
 */
import type { Layout } from "./layout.ts";

export const affine4: Layout = {
  name: "affine4",
  runWords: 4,
  scaling: "affine",
  eight: /* wgsl */ `
fn eight(run: u32, step: u32) -> Eight {
  let w = words[run + step * 8u];
  let low = w & vec4u(0x0f0f0f0fu);
  let high = (w >> vec4u(4u)) & vec4u(0x0f0f0f0fu);
  return Eight(
    vec4f(low & vec4u(255u)), vec4f((low >> vec4u(8u)) & vec4u(255u)), vec4f((low >> vec4u(16u)) & vec4u(255u)), vec4f(low >> vec4u(24u)),
    vec4f(high & vec4u(255u)), vec4f((high >> vec4u(8u)) & vec4u(255u)), vec4f((high >> vec4u(16u)) & vec4u(255u)), vec4f(high >> vec4u(24u)));
}`,
  codeAt: /* wgsl */ `
fn code_at(run: u32, column: u32) -> f32 {
  return f32((words[run + (column >> 3u) * 32u] >> (8u * (column & 3u) + 4u * ((column >> 2u) & 1u))) & 15u);
}`,
  fields: (column) => [
    { word: Math.floor(column / 8), bit: 8 * (column % 4) + 4 * (Math.floor(column / 4) % 2), bits: 4, from: 0 },
  ],
  value: (code) => code,
};
