/**
 * e2m1: floating codes of 4 bits, as MXFP4 and NVFP4 have them, with a scale for each group of a row.
 *
 *   w[r, c] = scale[r, c / group] · v,   v = ±0, 0.5, 1, 1.5, 2, 3, 4, 6 for codes 0 … 7, and negative for 8 … 15
 *
 * Source: OCP Microscaling Formats 1.0. Decoded by arithmetic: the exponent of 2 bits becomes one of 8 that is never 0, and where it was 0 the hidden bit is taken away again.
 */
import { eightOf, halvesOf } from "./bit_planes.ts";
import type { Layout } from "./layout.ts";

const VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

const E2M1 = /* wgsl */ `
fn e2m1(code: vec4u) -> vec4f {
  let x = bitcast<vec4f>(((code & vec4u(7u)) << vec4u(22u)) + vec4u(${126 << 23}u));
  let size = select(x, x + x - vec4f(1.0), (code & vec4u(6u)) == vec4u());
  return bitcast<vec4f>(bitcast<vec4u>(size) | ((code & vec4u(8u)) << vec4u(28u)));
}`;
const number = (codes: string) => `e2m1(${codes})`;

/** Codes of 4 bits in one plane. */
export const e2m1: Layout = {
  name: "e2m1",
  planes: [4],
  runWords: 4,
  scaling: "scale",
  eight: `${E2M1}${eightOf([4], number)}`,
  halves: halvesOf([4], number, E2M1),
  value: (code) => (code & 8 ? -1 : 1) * (VALUES[code & 7] ?? Number.NaN),
};
