/**
 * A norm on its own: before a block where the norm has a mean (LayerNorm), or behind a block and added to the residual stream.
 *
 *   before:  n = norm(y[m]),                       z[m] = scale · n
 *   behind:  y[m] += scale · norm(x[m]),           z[m] = next · y[m],   with sums of z and of y² by runs of 32
 *
 *   RMS norm:   norm(v) = v / √(Σ v² / cols + eps) · weight + bias
 *   LayerNorm:  the same of v − Σ v / cols
 *
 * Shapes: x (rows, x_stride) f32, zero behind cols, or none: the norm is then of y · y (rows, stride) f32, in place, zero behind cols ·
 * aux holds weight (cols), bias (cols) and the next norm's weight (cols) f32, zero behind · z activation (rows, cols).
 * Sources: Ba et al. 2016, "Layer Normalization"; Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
 *
 * How: one workgroup a row. Lanes sum quads in steps of WG, then pairwise in a fixed tree; z and its sums as embed leaves them.
 * Grid: (rows, 1, 1).
 */
import { FIXED_SUMS } from "./fragments/activation.ts";
import { kernel } from "./kernel.ts";

/** The kernel of this file. */
export const norm = kernel({
  name: "norm",
  reads: { x: "vec4f", aux: "f32" },
  writes: { y: "vec4f", z: "f32" },
  params: {
    cols: "u32",
    /** Of x, in vec4f; NONE: the norm is of y. */
    x_stride: "u32",
    /** 1: LayerNorm. */
    centred: "u32",
    eps: "f32",
    scale: "f32",
    weight: "u32",
    /** NONE where there is none, and none is 0. */
    bias: "u32",
    /** The next norm's weight, or NONE, which is 1; read where x is normed. */
    next: "u32",
    /** Of y and z, in f32s; runs a row; where the sums and squares of z begin. */
    stride: "u32",
    runs: "u32",
    z_sums: "u32",
    z_squares: "u32",
  },
  workgroup: 64,
  code: /* wgsl */ `${FIXED_SUMS}
var<workgroup> lanes: array<f32, WG>;
var<workgroup> z_quads: array<vec4f, WG>;
var<workgroup> y_quads: array<vec4f, WG>;
fn aux4(at: u32) -> vec4f { return vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]); }
fn source(row: u32, quad: u32) -> vec4f {
  if (params.x_stride == NONE) { return y[row * (params.stride / 4u) + quad]; }
  return x[row * params.x_stride + quad];
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  let quads = params.stride / 4u;
  var mean = 0.0;
  var inverse = 0.0;
  // Turn 0 takes the mean, turn 1 the squares around it: one loop, so that its tree compiles once.
  for (var turn = 1u - params.centred; turn < 2u; turn++) {
    var sum = vec4f();
    for (var i = lane; i < quads; i += WG) {
      let v = source(row, i);
      let columns = 4u * i + vec4u(0u, 1u, 2u, 3u);
      let d = select(vec4f(), v - mean, columns < vec4u(params.cols));
      sum = select(sum + d, fma(d, d, sum), vec4<bool>(turn == 1u));
    }
    workgroupBarrier();
    lanes[lane] = sum4(sum);
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
      if (lane < half) { lanes[lane] += lanes[lane + half]; }
      workgroupBarrier();
    }
    let mean_of = workgroupUniformLoad(&lanes[0]) / f32(params.cols);
    if (turn == 0u) { mean = mean_of; } else { inverse = 1.0 / sqrt(mean_of + params.eps); }
  }
  for (var run = 0u; run < params.runs; run += WG / 8u) {
    let k = run * 32u + lane * 4u;
    if (k < params.stride) {
      let i = row * quads + k / 4u;
      var bias = vec4f();
      if (params.bias != NONE) { bias = aux4(params.bias + k); }
      var u = params.scale * fma((source(row, k / 4u) - mean) * inverse, aux4(params.weight + k), bias);
      var v = u;
      if (params.x_stride != NONE) {
        v = y[i] + u;
        y[i] = v;
        u = v;
        if (params.next != NONE) { u = aux4(params.next + k) * v; }
      }
      for (var c = 0u; c < 4u; c++) { z[4u * i + c] = u[c]; }
      z_quads[lane] = u;
      y_quads[lane] = v;
    }
    workgroupBarrier();
    if (lane < WG / 8u && run + lane < params.runs) {
      let q = lane * 8u;
      var sum = z_quads[q];
      var square = y_quads[q] * y_quads[q];
      for (var i = 1u; i < 8u; i++) {
        sum += z_quads[q + i];
        square = fma(y_quads[q + i], y_quads[q + i], square);
      }
      z[params.z_sums + row * params.runs + run + lane] = sum4(sum);
      z[params.z_squares + row * params.runs + run + lane] = sum4(square);
    }
    workgroupBarrier();
  }
}`,
});
