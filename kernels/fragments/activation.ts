/**
 * How activations lie in a buffer, and the one order in which their sums are taken.
 *
 * An activation of `rows` rows is one f32 buffer: values (rows, stride), stride = cols rounded up to 32 with zeros
 * behind, then sums (rows, stride / 32) of each run of 32 values, then squares (rows, stride / 32) where a norm follows.
 * Whoever produces an activation leaves its sums, since matmuls with affine weights need Σ x by group and norms Σ x².
 */
import { BLOCK_COLS, paddedCols } from "../formats/layout.ts";

/** Offsets, in f32s, of the parts of an activation buffer. */
export interface ActivationShape {
  readonly rows: number;
  readonly cols: number;
  readonly stride: number;
  /** Runs of 32 columns. */
  readonly runs: number;
  readonly sums: number;
  readonly squares: number;
  readonly bytes: number;
}

/** The shape of an activation buffer. */
export function activationShape(rows: number, cols: number): ActivationShape {
  const stride = paddedCols(cols);
  const runs = stride / BLOCK_COLS;
  const sums = rows * stride;
  const squares = sums + rows * runs;
  return { rows, cols, stride, runs, sums, squares, bytes: (squares + rows * runs) * 4 };
}

/** Sums in a fixed order: a run of 32 is eight quads added one after the other, then (a + b) + (c + d). */
export const FIXED_SUMS = /* wgsl */ `
fn sum4(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }`;
