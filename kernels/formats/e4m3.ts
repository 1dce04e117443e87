/**
 * e4m3: floating codes of 8 bits with a scale for each group of a row: FP8 weights by tensor, row or block, and MXFP8.
 *
 *   w[r, c] = scale[r, c / group] · v,   v = ±(1 + m / 8) · 2^(e − 7), or ±m / 512 where e is 0
 *
 * Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning": 4 bits of exponent, 3 of mantissa, no infinity. The two codes of NaN decode as 480.
 */
import { eightOf, halvesOf } from "./bit_planes.ts";
import { e4m3FromBits } from "./group_scales.ts";
import type { Layout } from "./layout.ts";

const number = (codes: string) => `e4m3(${codes})`;

/** Codes of 8 bits in one plane. The WGSL of `e4m3` comes with the scales, which may be of the same type. */
export const e4m3: Layout = {
  name: "e4m3",
  planes: [8],
  runWords: 8,
  scaling: "scale",
  eight: eightOf([8], number),
  halves: halvesOf([8], number),
  value: e4m3FromBits,
};
