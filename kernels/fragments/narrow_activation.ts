/**
 * Narrow activations: how one lies in a buffer whose values are bytes or halves, each run of 32 columns scaled by its own maximum.
 *
 *   bytes    x ≈ scale · q,   scale = max |x| / 127,   q in −127 … 127
 *   halves   x ≈ scale · h,   scale = 2^⌊log2 max |x|⌋,   |h| < 2, rounded to f16: nothing is stored unscaled
 *
 * One u32 buffer: values (rows, cols rounded up to 32), then for each run (rows, runs) a pair of f32s, its scale and the sum of what its
 * values stand for, then squares (rows, runs) as the f32 activation has them. So Σ x of a group is of the very values that are multiplied.
 */
import { BLOCK_COLS, paddedCols } from "../formats/layout.ts";

/** What the values of a narrow activation are. */
export const NARROW = ["bytes", "halves"] as const;
export type Narrow = (typeof NARROW)[number];

/** u32s that hold eight values. */
export const EIGHT_WORDS: Readonly<Record<Narrow, number>> = { bytes: 2, halves: 4 };

/** Offsets, in u32s, of the parts of a narrow activation. */
export interface NarrowShape {
  readonly rows: number;
  readonly cols: number;
  /** Runs of 32 columns. */
  readonly runs: number;
  /** Pairs of scale and sum. */
  readonly sums: number;
  readonly squares: number;
  readonly bytes: number;
}

/** The shape of a narrow activation. */
export function narrowShape(rows: number, cols: number, narrow: Narrow): NarrowShape {
  const stride = paddedCols(cols);
  const runs = stride / BLOCK_COLS;
  const sums = (rows * stride * EIGHT_WORDS[narrow]) / 8;
  const squares = sums + 2 * rows * runs;
  return { rows, cols, runs, sums, squares, bytes: (squares + rows * runs) * 4 };
}
