/** How weights are stored, in a word. */
import { layouts } from "../kernels/formats/layouts.ts";
import type { Matrix } from "../models/matrix.ts";
import { blockBytes } from "../models/pieces.ts";

/** "affine4/32" (4 bits, 32 columns a scale), "f16" … */
export function weightLabel({ layout, group }: Pick<Matrix, "layout" | "group">): string {
  return layouts[layout].scaling !== "none" ? `${layout}/${group}` : layout;
}

/** Bytes of a matrix on the GPU. */
export function matrixBytes(matrix: Matrix): number {
  const { words, scales } = blockBytes(matrix);
  return matrix.blocks * (words + scales);
}

/** Bits on the GPU for each weight of the checkpoint, scales and padding included. */
export function bitsPerWeight(matrix: Matrix): number {
  const rows = matrix.parts.reduce((sum, part) => sum + part.rows, 0);
  return (8 * matrixBytes(matrix)) / (rows * matrix.cols);
}

/** Bytes by label, the most first. */
export function bytesByLabel(matrices: readonly Matrix[]): [label: string, bytes: number][] {
  const sums = new Map<string, number>();
  for (const matrix of matrices) {
    const label = weightLabel(matrix);
    sums.set(label, (sums.get(label) ?? 0) + matrixBytes(matrix));
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}

/** The label that most bytes of a model have. */
export function mostBytes(matrices: readonly Matrix[]): string {
  return bytesByLabel(matrices)[0]?.[0] ?? "none";
}
