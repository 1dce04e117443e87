/** The last steps of attention, shared by the kernel that takes all keys and the one that folds splits. */
import type { HeadDim } from "../fragments/batch.ts";

/** Stands for -∞, which drivers may assume away. */
export const MASKED = "-3e38";

/** Params of finishing a row: sinks and output. */
export const FINISH_PARAMS = {
  /** Workgroups along x: a row's units. */
  units: "u32",
  /** Splits a row in `partials`; 0 where one workgroup takes all keys. */
  splits: "u32",
  /** Sink logits in aux (heads), or NONE. */
  sinks: "u32",
  /** Of out: f32s a row, runs a row, where its sums begin or NONE (value_dim not a multiple of 32). */
  out_stride: "u32",
  out_runs: "u32",
  out_sums: "u32",
  /** Columns of qkv where the gate of head 0 begins, or NONE; from one head's to the next. */
  gate_at: "u32",
  gate_stride: "u32",
} as const;

/**
 * Declares the accumulators `part` (a split) and `total`, `fold_split`, which adds the one to the other, and `finish`,
 * which divides by the sum of exponentials, applies the output gate and writes the unit's heads, their sums, and zeros behind the
 * last head.
 */
export const finishFragment = (headDim: HeadDim): string => /* wgsl */ `
/** By dimension, and behind the last the sum of exponentials. */
var<workgroup> part: array<vec4f, ${headDim + 1}>;
var<workgroup> total: array<vec4f, ${headDim + 1}>;

/** What is NaN or infinite, by its bits: drivers make numbers of such a score in max, exp and comparisons. */
fn broken(s: vec4f) -> vec4<bool> { return (bitcast<vec4u>(s) & vec4u(0x7f800000u)) == vec4u(0x7f800000u); }
fn fold_split(total_max: vec4f, part_max: vec4f, lane: u32) -> vec4f {
  let new_max = max(total_max, part_max);
  let keep = exp(total_max - new_max);
  let take = exp(part_max - new_max);
  for (var i = lane; i <= params.value_dim; i += WG) { total[i] = fma(total[i], keep, part[i] * take); }
  return new_max;
}
/** sigmoid of the gates of a unit's heads; what is not finite stays so. */
fn gates(row: u32, unit: Unit, d: u32) -> vec4f {
  var g = vec4f();
  for (var h = 0u; h < unit.heads; h++) {
    g[h] = qkv[row * params.qkv_stride + params.gate_at + (unit.first_head + h) * params.gate_stride + d];
  }
  return select(1.0 / (1.0 + exp(min(-g, vec4f(80.0)))), g, broken(g));
}
fn finish(row: u32, unit: Unit, unit_index: u32, total_max: vec4f, lane: u32) {
  workgroupBarrier();
  var sum = total[params.value_dim];
  var keep = vec4f(1.0);
  if (params.sinks != NONE) {
    var sink = vec4f(${MASKED});
    for (var h = 0u; h < unit.heads; h++) { sink[h] = aux[params.sinks + unit.first_head + h]; }
    let new_max = max(total_max, sink);
    keep = exp(total_max - new_max);
    sum = fma(sum, keep, exp(sink - new_max));
  }
  let live = bitcast<vec4u>(sum) != vec4u(); // 0 for a row that only fills the batch up; a NaN goes on to the logits
  workgroupBarrier();
  for (var d = lane; d < params.value_dim; d += WG) {
    var o = select(vec4f(), total[d] * keep / sum, live);
    if (params.gate_at != NONE) { o *= gates(row, unit, d); }
    total[d] = o;
  }
  workgroupBarrier();
  let base = row * params.out_stride + unit.first_head * params.value_dim;
  for (var i = lane; i < unit.heads * params.value_dim; i += WG) {
    out[base + i] = total[i % params.value_dim][i / params.value_dim];
  }
  if (params.out_sums != NONE) {
    let runs = params.value_dim / 32u;
    for (var i = lane; i < unit.heads * runs; i += WG) {
      let head = i / runs;
      let d = (i % runs) * 32u;
      var sum = quad(d, head);
      for (var j = 4u; j < 32u; j += 4u) { sum += quad(d + j, head); }
      out[params.out_sums + row * params.out_runs + unit.first_head * runs + i] = sum4(sum);
    }
  }
  if (unit_index == params.units - 1u) {
    for (var i = params.heads * params.value_dim + lane; i < params.out_stride; i += WG) { out[row * params.out_stride + i] = 0.0; }
  }
}
fn quad(d: u32, head: u32) -> vec4f {
  return vec4f(total[d][head], total[d + 1u][head], total[d + 2u][head], total[d + 3u][head]);
}`;
