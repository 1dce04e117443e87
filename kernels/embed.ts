/**
 * Embedding gather: the first residual stream, and what the first norm needs.
 *
 *   y[m, k] = multiplier · w[token(m), k],   z[m, k] = weight[k] · y[m, k],   with sums of z and of y² by runs of 32
 *
 * Shapes: w (vocab, cols) in any layout, possibly a row shard · aux holds the first norm's weight (cols) f32, zero behind, or none, which is 1 ·
 * y (rows, stride) f32 · z activation (rows, cols). A row whose token lies in another shard is left alone.
 *
 * How: one workgroup a row; eight lanes a run of 32 columns. Grid: (rows, 1, 1).
 */

import { BLOCK_ROWS, type LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { FIXED_SUMS } from "./fragments/activation.ts";
import { ROW, ROW_WORDS } from "./fragments/batch.ts";
import { kernel, variants } from "./kernel.ts";

export const embed = variants((name: LayoutName) => {
  const layout = layouts[name];
  return kernel({
    name: `embed ${name}`,
    reads: { words: "u32", scales: "u32", aux: "f32", batch: "u32" },
    writes: { y: "f32", z: "f32" },
    params: {
      /** Runs of 32 columns a row of w. */
      row_runs: "u32",
      groups: "u32",
      group_cols: "u32",
      scale_type: "u32",
      /** Rows of the whole matrix in this shard. */
      first_row: "u32",
      end_row: "u32",
      multiplier: "f32",
      norm_weight: "u32",
      stride: "u32",
      runs: "u32",
      z_sums: "u32",
      z_squares: "u32",
    },
    workgroup: 64,
    code: /* wgsl */ `${layout.codeAt}${FIXED_SUMS}
var<workgroup> z_quads: array<vec4f, 64>;
var<workgroup> y_quads: array<vec4f, 64>;
fn weight(row: u32, column: u32) -> f32 {
  let block = row / ${BLOCK_ROWS}u;
  let r = row % ${BLOCK_ROWS}u;
  let code = code_at((block * params.row_runs + column / 32u) * ${layout.runWords * BLOCK_ROWS}u + r, column % 32u);
${
  layout.scaling !== "none"
    ? `  let i = (block * params.groups + column / params.group_cols) * ${BLOCK_ROWS}u;
  if (params.scale_type == 2u) { return bitcast<f32>(scales[2u * i + r]) * code + bitcast<f32>(scales[2u * i + ${BLOCK_ROWS}u + r]); }
  let s = scales[i + r];
  if (params.scale_type == 1u) { return bitcast<f32>(s << 16u) * code + bitcast<f32>(s & 0xffff0000u); }
  let half = unpack2x16float(s);
  return half.x * code + half.y;`
    : "  return code;"
}
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let token = batch[wg.x * ${ROW_WORDS}u + ${ROW.token}u];
  if (token < params.first_row || token >= params.end_row) { return; }
  let row = token - params.first_row;
  for (var run = 0u; run < params.runs; run += 8u) {
    let k = run * 32u + lane * 4u;
    if (k < params.stride) {
      let v = params.multiplier * vec4f(weight(row, k), weight(row, k + 1u), weight(row, k + 2u), weight(row, k + 3u));
      var u = v;
      if (params.norm_weight != NONE) {
        let at = params.norm_weight + k;
        u = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]) * v;
      }
      for (var i = 0u; i < 4u; i++) {
        y[wg.x * params.stride + k + i] = v[i];
        z[wg.x * params.stride + k + i] = u[i];
      }
      z_quads[lane] = u;
      y_quads[lane] = v;
    }
    workgroupBarrier();
    if (lane < 8u && run + lane < params.runs) {
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
