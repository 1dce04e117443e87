/**
 * Matmul added to the residual stream, and what the next norm needs: o_proj and down_proj.
 *
 *   y[m, n] += Σ_k w[n, k] · x[m, k] + bias[n] + delta[m, n]
 *   z[m, n]  = weight[n] · y[m, n],   with sums of z and of y² by runs of 32
 *
 * Shapes: x activation (rows, cols), with stored sums unless `ownSums` · w (N, cols) in any layout · aux holds bias (N) and the next norm's weight (N) f32,
 * zero behind N, or no weight, which is 1 · y (rows, stride) f32, in place · z activation (rows, N).
 *
 * How: as norm_matmul; the four rows of a lane are a quad of the run, whose sums have the fixed order of docs/numerics.md.
 */

import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { DOT_PARAMS, isShared, type MatmulRows, type XFrom, xSuffix } from "./fragments/matmul.ts";
import { anyDotFragment, xSpec } from "./fragments/narrow_dot.ts";
import { isWide, lanesOf, octetFragment, splitParams } from "./fragments/wide.ts";
import { firstRow, windowSpec } from "./fragments/window.ts";
import { kernel, variants } from "./kernel.ts";
import { matmulResidualSubgroup } from "./matmul_residual_subgroup.ts";

/** Of 8 lanes: quads of z and y, kept until all lanes have theirs. */
const EIGHT_LANES = (rows: MatmulRows): string => `
var<workgroup> z_quads: array<vec4f, ${8 * rows}>;
var<workgroup> y_quads: array<vec4f, ${8 * rows}>;`;
const eightLaneSums = (rows: MatmulRows): string => /* wgsl */ `    z_quads[m * WG + lane] = u;
    y_quads[m * WG + lane] = v;
  }
  workgroupBarrier();
  if (lane < ${rows}u) {
    let q = lane * 8u;
    var sum = z_quads[q];
    var square = y_quads[q] * y_quads[q];
    for (var i = 1u; i < 8u; i++) {
      sum += z_quads[q + i];
      square = fma(y_quads[q + i], y_quads[q + i], square);
    }
    let at_run = (first + lane) * params.y_runs + run;
    z[params.z_sums + at_run] = sum4(sum);
    z[params.z_squares + at_run] = sum4(square);
  }`;

/** Of wide workgroups: `dots` holds the quads of y, then those of z, since eight rows of both are more than workgroup memory should hold. */
const WIDE_SUMS = /* wgsl */ `    dots[m * WG + lane] = v;
  }
  workgroupBarrier();
  let own = sum_at(wg.x, lane);
  let at_run = (first + own.m) * params.y_runs + params.first_block + own.unit;
  if (own.is_there) {
    var square = dots[own.quad] * dots[own.quad];
    for (var i = 1u; i < 8u; i++) { square = fma(dots[own.quad + i], dots[own.quad + i], square); }
    z[params.z_squares + at_run] = sum4(square);
  }
  workgroupBarrier();
  for (var m = 0u; m < own_rows; m++) { dots[m * WG + lane] *= weight; }
  workgroupBarrier();
  if (own.is_there) {
    var sum = dots[own.quad];
    for (var i = 1u; i < 8u; i++) { sum += dots[own.quad + i]; }
    z[params.z_sums + at_run] = sum4(sum);
  }`;

export const matmulResidual = variants((layout: LayoutName, rows: MatmulRows, ownSums: boolean, from: XFrom) =>
  kernel({
    name: `matmul_residual ${layout} M=${rows}${ownSums ? " own sums" : ""}${xSuffix(from)}`,
    ...xSpec(from).needs,
    reads: { words: "vec4u", scales: "vec4u", x: xSpec(from).element, aux: "f32", delta: "vec4f" },
    writes: { y: "vec4f", z: "f32" },
    windows: windowSpec(from).windows,
    params: {
      ...DOT_PARAMS,
      ...splitParams(from),
      ...windowSpec(from).params,
      bias: "u32",
      norm_weight: "u32",
      delta_stride: "u32",
      /** First block of 32 outputs: a row shard begins past 0. */
      first_block: "u32",
      /** Of y and z, in vec4f; runs a row; where the sums and squares of z begin. */
      y_stride: "u32",
      y_runs: "u32",
      z_sums: "u32",
      z_squares: "u32",
    },
    workgroup: lanesOf(from),
    code: isShared(from)
      ? matmulResidualSubgroup(layout, rows, ownSums, from)
      : /* wgsl */ `${anyDotFragment(layouts[layout], rows, { ownSums, from })}${isWide(from) ? octetFragment(rows, "block") : EIGHT_LANES(rows)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = ${firstRow(from, rows)};
${
  isWide(from)
    ? `  let at = octet_at(wg.x, lane);
  dot_rows(at, first, lane);
  workgroupBarrier();
  let own_rows = select(0u, ${rows}u, at.owner);
  let n = (params.first_block + at.block) * 8u + at.quad;`
    : `  dot_rows(wg.x, lane, first, lane);
  let run = params.first_block + wg.x;
  let n = run * 8u + lane;`
}
  var bias = vec4f();
  if (params.bias != NONE) {
    let at = params.bias + 4u * n;
    bias = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]);
  }
  var weight = vec4f(1.0);
  if (params.norm_weight != NONE) {
    let at = params.norm_weight + 4u * n;
    weight = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]);
  }
  for (var m = 0u; m < ${isWide(from) ? "own_rows" : `${rows}u`}; m++) {
    let i = (first + m) * params.y_stride + n;
    var v = ${isWide(from) ? "whole(m, lane)" : "dots[m * WG + lane]"} + bias;
    if (params.delta_stride != NONE) { v += delta[(first + m) * params.delta_stride + n]; }
    v += y[i];
    y[i] = v;
    let u = weight * v;
    z[4u * i] = u.x;
    z[4u * i + 1u] = u.y;
    z[4u * i + 2u] = u.z;
    z[4u * i + 3u] = u.w;
${isWide(from) ? WIDE_SUMS : eightLaneSums(rows)}
}`,
  }),
);
