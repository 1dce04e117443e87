/** The end of a feed-forward: a quad of outputs added to the residual stream, and what the next norm needs. */

/** Params of `add_quad`. */
export const RESIDUAL_PARAMS = {
  /** Of aux, or NONE: 1. */
  norm_weight: "u32",
  /** Of y and z, in vec4f; runs a row; where the sums and squares of z begin. */
  y_stride: "u32",
  y_runs: "u32",
  z_sums: "u32",
  z_squares: "u32",
} as const;

/**
 * `add_quad(row, n, value, lane)`: y += value, z = weight · y for quad n of the row. `sum_run(row, run, lane)`, behind a
 * barrier, by the lane of a run's first quad: the run's sums, in the order of docs/numerics.md.
 */
export const ADD_QUAD = /* wgsl */ `
var<workgroup> z_quads: array<vec4f, WG>;
var<workgroup> y_quads: array<vec4f, WG>;
fn add_quad(row: u32, n: u32, value: vec4f, lane: u32) {
  let i = row * params.y_stride + n;
  let v = value + y[i];
  y[i] = v;
  var u = v;
  if (params.norm_weight != NONE) {
    let at = params.norm_weight + 4u * n;
    u = vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]) * v;
  }
  z[4u * i] = u.x;
  z[4u * i + 1u] = u.y;
  z[4u * i + 2u] = u.z;
  z[4u * i + 3u] = u.w;
  z_quads[lane] = u;
  y_quads[lane] = v;
}
fn sum_run(row: u32, run: u32, lane: u32) {
  var sum = z_quads[lane];
  var square = y_quads[lane] * y_quads[lane];
  for (var i = 1u; i < 8u; i++) {
    sum += z_quads[lane + i];
    square = fma(y_quads[lane + i], y_quads[lane + i], square);
  }
  let at = row * params.y_runs + run;
  z[params.z_sums + at] = sum4(sum);
  z[params.z_squares + at] = sum4(square);
}`;
