/**
 * Norm, gate and up projections, activation: the first half of a gated MLP.
 *
 *   out[m, n] = act(gate(m, n)) · up(m, n),   gate(m, n) = inverse_rms(m) · Σ_k w_gate[n, k] · x[m, k] + bias_gate[n]
 *
 * Shapes: x activation (rows, cols), multiplied by the norm's weight · w (2 N, cols) in any layout, blocks of 32 gate rows
 * and of 32 up rows by turns · aux holds the biases and delta (rows, delta_stride) the low-rank part, in the same order of
 * rows · out activation (rows, N), with sums.
 * Source: Shazeer 2020, "GLU Variants Improve Transformer".
 *
 * How: one workgroup of 16 lanes a pair of blocks: 8 lanes have gate rows, 8 the up rows of the same outputs. On GPUs half of the eight octets
 * (fragments/wide.ts) have gate rows, the others the up rows.
 */

import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { ACTIVATE } from "./fragments/act.ts";
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
import { normGateUpSubgroup } from "./norm_gate_up_subgroup.ts";

export const normGateUp = variants((layout: LayoutName, rows: MatmulRows, from: XFrom) => {
  const ownRows = isWide(from) ? "own_rows" : `${rows}u`;
  /** Where a lane finds its own quad of gate, and that of up. */
  const [gate, up] = isWide(from) ? ["lane", "32u + lane"] : ["quad", "8u + quad"];
  return kernel({
    name: `norm_gate_up ${layout} M=${rows}${xSuffix(from)}`,
    ...xSpec(from).needs,
    reads: { words: "vec4u", scales: "vec4u", x: xSpec(from).element, aux: "f32", delta: "vec4f" },
    writes: { out: "f32" },
    windows: windowSpec(from).windows,
    params: {
      ...DOT_PARAMS,
      ...splitParams(from),
      ...windowSpec(from).params,
      ...NORM_PARAMS,
      activation: "u32",
      bias: "u32",
      delta_stride: "u32",
      /** First pair of blocks: a row shard begins past 0. */
      first_pair: "u32",
      /** Of out, in vec4f; runs a row; where its sums begin. */
      out_stride: "u32",
      out_runs: "u32",
      out_sums: "u32",
    },
    workgroup: from === "storage" ? 16 : lanesOf(from),
    code: isShared(from)
      ? normGateUpSubgroup(layout, rows, from)
      : /* wgsl */ `${anyDotFragment(layouts[layout], rows, { from })}${isWide(from) ? octetFragment(rows, "pair") : ""}${normFragment(rows)}${ACTIVATE}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = ${firstRow(from, rows)};
  norm_of_x(first, lane);
${
  isWide(from)
    ? `  let at = octet_at(wg.x, lane);
  let quad = at.quad;
  let half = lane >> 5u;
  dot_rows(at, first, lane);
  workgroupBarrier();
  let own_rows = select(0u, ${rows}u, at.owner);
  let run = params.first_pair + at.unit;`
    : `  let quad = lane & 7u;
  let half = lane >> 3u;
  dot_rows(wg.x * 2u + half, quad, first, lane);
  let run = params.first_pair + wg.x;`
}
  let stored = (run * 2u + half) * 8u + quad;
  var bias = vec4f();
  if (params.bias != NONE) {
    let at = params.bias + 4u * stored;
    bias = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]);
  }
  for (var m = 0u; m < ${ownRows}; m++) {
    var v = fma(${isWide(from) ? "whole(m, lane)" : "dots[m * WG + lane]"}, vec4f(inverse_rms[m]), bias);
    if (params.delta_stride != NONE) { v += delta[(first + m) * params.delta_stride + stored]; }
    dots[m * WG + lane] = v;
  }
  workgroupBarrier();
  if (half == 0u) {
    for (var m = 0u; m < ${ownRows}; m++) {
      let u = activate(dots[m * WG + ${gate}], params.activation) * dots[m * WG + ${up}];
      let i = 4u * ((first + m) * params.out_stride + run * 8u + quad);
      out[i] = u.x;
      out[i + 1u] = u.y;
      out[i + 2u] = u.z;
      out[i + 3u] = u.w;
      dots[m * WG + ${gate}] = u;
    }
  }
  workgroupBarrier();
${
  isWide(from)
    ? `  let own = sum_at(wg.x, lane);
  if (own.is_there) {
    var sum = dots[own.quad];
    for (var i = 1u; i < 8u; i++) { sum += dots[own.quad + i]; }
    out[params.out_sums + (first + own.m) * params.out_runs + params.first_pair + own.unit] = sum4(sum);
  }`
    : `  if (lane < ${rows}u) {
    var sum = dots[lane * WG];
    for (var i = 1u; i < 8u; i++) { sum += dots[lane * WG + i]; }
    out[params.out_sums + (first + lane) * params.out_runs + run] = sum4(sum);
  }`
}
}`,
  });
});
