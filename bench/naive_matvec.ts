/**
 * The matmul that anyone writes first, as the measure of the others: one lane a row of w, nothing shared, nothing vectorised.
 *
 *   y[m, n] = Σ_k ( scale[n, k / 32] · q[n, k] + bias[n, k / 32] ) · x[m, k]
 *
 * Shapes: words (N, K / per) u32, row-major · scales, biases (N, K / 32) f32 · x (M, K) · y (M, N), every element stored.
 *
 * How: a lane walks its row word by word, and once more for each row of x.
 * Limits: groups of 32; N a multiple of 64.
 */
import { kernel, variants } from "../kernels/kernel.ts";

/** Columns a scale. */
export const NAIVE_GROUP = 32;
const LANES = 64;

/** Layouts that it reads. */
export type NaiveLayout = "affine4" | "affine8";

/** A code from its word: in affine4, byte b holds columns b and 4 + b. */
const CODE: Readonly<Record<NaiveLayout, string>> = {
  affine4: "(word >> (8u * (j & 3u) + 4u * (j >> 2u))) & 15u",
  affine8: "(word >> (8u * j)) & 255u",
};
const PER_WORD: Readonly<Record<NaiveLayout, number>> = { affine4: 8, affine8: 4 };

/** Workgroups for `outputs` rows. */
export const naiveGrid = (outputs: number) => [outputs / LANES, 1, 1] as const;

/** The kernel for a layout and a number of rows of x. */
export const naiveMatvec = variants((layout: NaiveLayout, rows: number) => {
  const per = PER_WORD[layout];
  return kernel({
    name: `naive_matvec ${layout} M=${rows}`,
    reads: { words: "u32", scales: "f32", biases: "f32", x: "vec4f" },
    writes: { y: "f32" },
    params: { cols: "u32", outputs: "u32" },
    workgroup: LANES,
    code: /* wgsl */ `
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row_words = params.cols / ${per}u;
  for (var m = 0u; m < ${rows}u; m++) {
    var acc = 0.0;
    for (var w = 0u; w < row_words; w++) {
      let word = words[id.x * row_words + w];
      let group = id.x * (params.cols / ${NAIVE_GROUP}u) + w / ${NAIVE_GROUP / per}u;
      let scale = scales[group];
      let bias = biases[group];
      for (var j = 0u; j < ${per}u; j++) {
        let k = w * ${per}u + j;
        acc += (scale * f32(${CODE[layout]}) + bias) * x[(m * params.cols + k) >> 2u][k & 3u];
      }
    }
    y[m * params.outputs + id.x] = acc;
  }
}`,
  });
});
