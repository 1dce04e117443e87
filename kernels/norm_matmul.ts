/**
 * Norm, matmul, bias: the QKV projections and the head.
 *
 *   out[m, n] = inverse_rms(m) · Σ_k w[n, k] · x[m, k] + bias[n] + delta[m, n]
 *
 * Shapes: x activation (rows, cols), already multiplied by the norm's weight, with squares of the residual stream ·
 * w (N, cols) in any layout · aux holds bias (N) f32 · delta (rows, delta_stride) f32 · out (rows, out_stride) f32.
 * Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization"; the factor moved behind the sum, which is linear.
 *
 * How: one workgroup of 8 lanes a block of 32 rows of w and M rows of x. Grid: (blocks, rows / M, 1). On GPUs eight octets of lanes, which
 * divide blocks or the columns of a block: fragments/wide.ts has the grid.
 * Limits: rows a multiple of M (buffers padded).
 */

import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import {
  DOT_PARAMS,
  isShared,
  type MatmulRows,
  NORM_PARAMS,
  normFragment,
  type XFrom,
  xSuffix,
} from "./fragments/matmul.ts";
import { anyDotFragment, xSpec } from "./fragments/narrow_dot.ts";
import { isWide, lanesOf, octetFragment, splitParams } from "./fragments/wide.ts";
import { firstRow, windowSpec } from "./fragments/window.ts";
import { kernel, variants } from "./kernel.ts";
import { normMatmulSubgroup } from "./norm_matmul_subgroup.ts";

export const normMatmul = variants((layout: LayoutName, rows: MatmulRows, from: XFrom) =>
  kernel({
    name: `norm_matmul ${layout} M=${rows}${xSuffix(from)}`,
    ...xSpec(from).needs,
    reads: { words: "vec4u", scales: "vec4u", x: xSpec(from).element, aux: "f32", delta: "vec4f" },
    writes: { out: "vec4f" },
    windows: windowSpec(from).windows,
    params: {
      ...DOT_PARAMS,
      ...splitParams(from),
      ...windowSpec(from).params,
      ...NORM_PARAMS,
      bias: "u32",
      delta_stride: "u32",
      out_offset: "u32",
      out_stride: "u32",
    },
    workgroup: lanesOf(from),
    code: isShared(from)
      ? normMatmulSubgroup(layout, rows, from)
      : /* wgsl */ `${anyDotFragment(layouts[layout], rows, { from })}${isWide(from) ? octetFragment(rows, "block") : ""}${normFragment(rows)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = ${firstRow(from, rows)};
  norm_of_x(first, lane);
${
  isWide(from)
    ? `  let at = octet_at(wg.x, lane);
  dot_rows(at, first, lane);
  workgroupBarrier();
  if (!at.owner) { return; }
  let n = at.block * 8u + at.quad;`
    : `  dot_rows(wg.x, lane, first, lane);
  let n = wg.x * 8u + lane;`
}
  var bias = vec4f();
  if (params.bias != NONE) {
    let at = params.bias + 4u * n;
    bias = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]);
  }
  for (var m = 0u; m < ${rows}u; m++) {
    var y = fma(${isWide(from) ? "whole(m, lane)" : "dots[m * WG + lane]"}, vec4f(inverse_rms[m]), bias);
    if (params.delta_stride != NONE) { y += delta[(first + m) * params.delta_stride + params.out_offset + n]; }
    out[(first + m) * params.out_stride + params.out_offset + n] = y;
  }
}`,
  }),
);
