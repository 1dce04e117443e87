/**
 * An activation made narrow, before a matmul that multiplies bytes or halves.
 *
 *   bytes    q[m, k] = round(x[m, k] · (127 / top)),   scale = top / 127,   top = max |x| over the run of 32 columns that k is in
 *   halves   h[m, k] = f16(x[m, k] / scale),           scale = 2^⌊log2 top⌋
 *   sum      scale · Σ q, or scale · Σ h: an integer sum, or one in the order of docs/numerics.md
 *
 * Shapes: x activation (rows, cols) · out narrow activation (rows, cols), squares copied (fragments/narrow_activation.ts). Halves of a quad
 * are stored as columns 0, 2, 1, 3: the order in which codes of weights are taken two at a time.
 * Source: Dettmers et al. 2022, "LLM.int8()", whose vectors here are runs of 32, as llama.cpp's q8_0.
 *
 * How: eight lanes a run, one lane a quad of columns. Grid: (runs / 8, rows, 1).
 * Limits: a run whose greatest value is below 1e-30 becomes zeros (bytes), or loses bits below 2^-100 (halves). A run with a value that
 * is not finite gets a NaN as scale and sum, so that the fault stays seen.
 */
import { FIXED_SUMS } from "./fragments/activation.ts";
import type { Narrow } from "./fragments/narrow_activation.ts";
import { kernel, variants } from "./kernel.ts";

/** Runs of 32 columns that one workgroup makes. */
export const NARROW_RUNS = 8;

/** 127 levels on each side of zero, so that −q is a level where q is. */
export const LEVELS = 127;

/** Numbers between which the exponents of halves' scales are kept, as the bits of an f32 have them: their inverses are normal numbers. */
export const EXPONENTS = [27, 250] as const;

const SMALLEST = 0x0da24260; // 1e-30, whose inverse times 127 is a normal number
const NOT_FINITE = 0x7f800000;
const POISON = "0x7fc00000u";

const BYTES = /* wgsl */ `
var<workgroup> totals: array<i32, WG>;
fn store(v: vec4f, top: u32, at: u32, lane: u32) {
  var inverse = 0.0;
  if (top >= ${SMALLEST}u && top < ${NOT_FINITE}u) { inverse = ${LEVELS}.0 / bitcast<f32>(top); }
  let q = vec4i(clamp(round(v * inverse), vec4f(-${LEVELS}.0), vec4f(${LEVELS}.0)));
  let b = bitcast<vec4u>(q) & vec4u(255u);
  out[at] = b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
  totals[lane] = (q.x + q.y) + (q.z + q.w);
}
fn scale_of(top: u32) -> f32 { return select(0.0, bitcast<f32>(top) * ${Math.fround(1 / LEVELS)}, top >= ${SMALLEST}u); }
fn sum_of(first: u32) -> f32 {
  var total = totals[first];
  for (var i = 1u; i < 8u; i++) { total += totals[first + i]; }
  return f32(total);
}`;

const HALVES = /* wgsl */ `
/** Rounded on the way through memory: in registers some drivers would keep the bits that halves do not have. */
var<workgroup> pairs: array<vec2u, WG>;
fn exponent(top: u32) -> u32 { return clamp(top >> 23u, ${EXPONENTS[0]}u, ${EXPONENTS[1]}u); }
fn store(v: vec4f, top: u32, at: u32, lane: u32) {
  let h = v * bitcast<f32>((254u - exponent(top)) << 23u);
  let pair = vec2u(pack2x16float(vec2f(h.x, h.z)), pack2x16float(vec2f(h.y, h.w)));
  out[2u * at] = pair.x;
  out[2u * at + 1u] = pair.y;
  pairs[lane] = pair;
}
fn scale_of(top: u32) -> f32 { return bitcast<f32>(exponent(top) << 23u); }
fn quad(i: u32) -> vec4f {
  let even = unpack2x16float(pairs[i].x);
  let odd = unpack2x16float(pairs[i].y);
  return vec4f(even.x, odd.x, even.y, odd.y);
}
fn sum_of(first: u32) -> f32 {
  var sum = quad(first);
  for (var i = 1u; i < 8u; i++) { sum += quad(first + i); }
  return sum4(sum);
}`;

/** The kernel of this file. */
export const narrowActivation = variants((narrow: Narrow) =>
  kernel({
    name: `narrow ${narrow}`,
    reads: { x: "vec4u" },
    writes: { out: "u32" },
    params: {
      /** Quads and runs a row. */
      quads: "u32",
      runs: "u32",
      /** Where the squares of x, and the pairs and squares of out begin. */
      x_squares: "u32",
      sums: "u32",
      squares: "u32",
    },
    workgroup: 8 * NARROW_RUNS,
    code: /* wgsl */ `${FIXED_SUMS}${narrow === "bytes" ? BYTES : HALVES}
var<workgroup> tops: array<u32, WG>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = wg.x * WG + lane; // of quads
  let at = wg.y * params.quads + column;
  let inside = column < params.quads;
  var v = vec4u();
  if (inside) { v = x[at]; }
  let size = v & vec4u(0x7fffffffu); // as u32s they are in the order of the numbers, what is not finite above all
  tops[lane] = max(max(size.x, size.y), max(size.z, size.w));
  workgroupBarrier();
  let first = lane & ~7u;
  var top = tops[first];
  for (var i = 1u; i < 8u; i++) { top = max(top, tops[first + i]); }
  if (inside) { store(bitcast<vec4f>(v), top, at, lane); }
  workgroupBarrier();
  if (inside && lane == first) {
    let run = wg.y * params.runs + column / 8u;
    let scale = scale_of(top);
    let finite = top < ${NOT_FINITE}u;
    out[params.sums + 2u * run] = select(${POISON}, bitcast<u32>(scale), finite);
    out[params.sums + 2u * run + 1u] = select(${POISON}, bitcast<u32>(scale * sum_of(first)), finite);
    let square = params.x_squares + run;
    out[params.squares + run] = x[square >> 2u][square & 3u];
  }
}`,
  }),
);
