/**
 * affine2 … affine8: integer codes of 2, 3, 4, 5, 6 or 8 bits with a scale and an offset for each group of a row.
 *
 *   w[r, c] = scale[r, c / group] · q[r, c] + bias[r, c / group],   or   scale · (q − zero) with an integer zero,   q in 0 … 2^bits − 1
 *
 * Codes of 3, 5 and 6 bits lie in two planes: 2 + 1, 4 + 1 and 4 + 2 bits (bit_planes.ts), so that no code crosses a word.
 */
import { eightByMasks, eightOf, halvesOf } from "./bit_planes.ts";
import type { Layout, LayoutName } from "./layout.ts";

function affine(name: LayoutName, planes: readonly number[]): Layout {
  const runWords = planes.reduce((a, b) => a + b);
  // Through i32: software adapters convert signed integers in one instruction, unsigned ones in six; GPUs see bytes either way.
  const number = (codes: string) => `vec4f(bitcast<vec4i>(${codes}))`;
  return {
    name,
    planes,
    runWords,
    scaling: "affine",
    eight: eightOf(planes, number),
    eightByMasks: eightByMasks(planes),
    halves: halvesOf(planes, number),
    value: (code) => code,
  };
}

/** 2 bits: one plane. */
export const affine2 = affine("affine2", [2]);
/** 3 bits: planes of 2 bits and 1. */
export const affine3 = affine("affine3", [2, 1]);
/** 4 bits: one plane. */
export const affine4 = affine("affine4", [4]);
/** 5 bits: planes of 4 bits and 1. */
export const affine5 = affine("affine5", [4, 1]);
/** 6 bits: planes of 4 bits and 2. */
export const affine6 = affine("affine6", [4, 2]);
/** 8 bits: one plane. */
export const affine8 = affine("affine8", [8]);
