/**
 * Embedding gather: the first residual stream, and what the first norm needs.
 *
 *   y[m, k] = multiplier · w[id(m), k] (+ y[m, k]),   z[m, k] = weight[k] · y[m, k],   with sums of z and of y² by runs of 32
 *
 * Shapes: w (vocab, cols) in any layout, possibly a row shard · aux holds the first norm's weight (cols) f32, zero behind, or none, which is 1 ·
 * y (rows, stride) f32 · z activation (rows, cols). A row whose id lies in another shard is left alone.
 * The id is the token, or the position where a second launch adds learned positions.
 *
 * How: one workgroup a row; four lanes a run of 32 columns, each of which decodes eight columns as the matmuls do, of four rows, and takes
 * its row's. Grid: (rows, 1, 1).
 */

import { GROUP_SCALE } from "./formats/group_scales.ts";
import { BLOCK_ROWS, EIGHT, type LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { FIXED_SUMS } from "./fragments/activation.ts";
import { ROW_WORDS } from "./fragments/batch.ts";
import { kernel, variants } from "./kernel.ts";

const COLUMNS = [0, 1, 2, 3, 4, 5, 6, 7];

export const embed = variants((name: LayoutName) => {
  const layout = layouts[name];
  return kernel({
    name: `embed ${name}`,
    reads: { words: "vec4u", scales: "vec4u", aux: "f32", batch: "u32" },
    writes: { y: "f32", z: "f32" },
    params: {
      /** Runs of 32 columns a row of w. */
      row_runs: "u32",
      groups: "u32",
      group_cols: "u32",
      scale_type: "u32",
      param_words: "u32",
      table: "u32",
      /** Rows of the whole matrix in this shard. */
      first_row: "u32",
      end_row: "u32",
      multiplier: "f32",
      /** Word of the row's record that is the id; 1: y is added to. */
      id_word: "u32",
      add: "u32",
      norm_weight: "u32",
      stride: "u32",
      runs: "u32",
      z_sums: "u32",
      z_squares: "u32",
    },
    workgroup: 64,
    code: /* wgsl */ `${EIGHT}${layout.prepare ?? ""}${layout.eight}${layout.scaling === "none" ? "" : GROUP_SCALE[layout.scaling]}${FIXED_SUMS}
var<workgroup> z_quads: array<vec4f, 128>;
var<workgroup> y_quads: array<vec4f, 128>;
/** Eight columns of a row, from column k on. */
fn weights(row: u32, k: u32) -> array<f32, 8> {
  let block = row / ${BLOCK_ROWS}u;
  let quad = (row % ${BLOCK_ROWS}u) / 4u;
  let r = row % 4u;
  let e = eight((block * params.row_runs + k / 32u) * ${layout.runWords * 8}u + quad, (k % 32u) / 8u);
${
  layout.scaling === "none"
    ? `  return array<f32, 8>(${COLUMNS.map((i) => `e.q${i}[r]`).join(", ")});`
    : `  // A group is eight columns at least, so one group has all of them.
  let group = weight_group(block * params.param_words * 8u + quad, k / params.group_cols, params.groups, params.scale_type);
  let scale = group.scale[r];
  let zero = group.zero[r];
  let bias = group.bias[r];
  return array<f32, 8>(${COLUMNS.map((i) => `scale * (e.q${i}[r] - zero) + bias`).join(", ")});`
}
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = batch[wg.x * ${ROW_WORDS}u + params.id_word];
  if (id < params.first_row || id >= params.end_row) { return; }
${layout.prepare === undefined ? "" : "  prepare(lane);"}
  let row = id - params.first_row;
  for (var run = 0u; run < params.runs; run += 16u) {
    let k = run * 32u + lane * 8u;
    if (k < params.stride) {
      var w = weights(row, k);
      for (var half = 0u; half < 2u; half++) {
        var v = params.multiplier * vec4f(w[4u * half], w[4u * half + 1u], w[4u * half + 2u], w[4u * half + 3u]);
        if (params.add == 1u) {
          let at = wg.x * params.stride + k + 4u * half;
          v += vec4f(y[at], y[at + 1u], y[at + 2u], y[at + 3u]);
        }
        var u = v;
        if (params.norm_weight != NONE) {
          let at = params.norm_weight + k + 4u * half;
          u = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]) * v;
        }
        for (var i = 0u; i < 4u; i++) {
          y[wg.x * params.stride + k + 4u * half + i] = v[i];
          z[wg.x * params.stride + k + 4u * half + i] = u[i];
        }
        z_quads[2u * lane + half] = u;
        y_quads[2u * lane + half] = v;
      }
    }
    workgroupBarrier();
    if (lane < 16u && run + lane < params.runs) {
      let q = lane * 8u;
      var sum = z_quads[q];
      var square = y_quads[q] * y_quads[q];
      for (var i = 1u; i < 8u; i++) {
        sum += z_quads[q + i];
        square = fma(y_quads[q + i], y_quads[q + i], square);
      }
      z[params.z_sums + wg.x * params.runs + run + lane] = sum4(sum);
      z[params.z_squares + wg.x * params.runs + run + lane] = sum4(square);
    }
    workgroupBarrier();
  }
}`,
  });
});
