/** The last steps of attention of one query, shared by the kernel of one split and the one that folds splits. */

/** Stands for -∞, which drivers may assume away. */
export const MASKED = "-3e38";

/** Params of finishing a row: partial results, sinks, gate and output. */
export const FINISH_PARAMS = {
  /** Workgroups along x: a row's units. */
  units: "u32",
  /** Splits a row in `partials`; 0 where no row has more than one, which is then finished at once. */
  splits: "u32",
  /** The first row of the launch, which `partials` begins with, and the row behind its last. */
  first_row: "u32",
  end_row: "u32",
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

/** Where the record of a query's split begins in `partials`: value_dim accumulators, the sum of exponentials, the maximum. */
export const PARTIAL_AT = /* wgsl */ `
fn partial_at(row: u32, head: u32, split: u32) -> u32 {
  return (((row - params.first_row) * params.heads + head) * params.splits + split) * (params.value_dim + 2u);
}`;

/**
 * Declares `sunk`, what a query's accumulators are multiplied and divided by; `write_out`, which does so and applies the
 * output gate; and, behind a storage barrier, `write_sum` and `write_padding`.
 */
export const FINISH = /* wgsl */ `
/** Of a query: its accumulators count times keep, over sum. */
struct Sunk { keep: f32, sum: f32 }
fn sunk(row_max: f32, sum: f32, head: u32) -> Sunk {
  if (params.sinks == NONE) { return Sunk(1.0, sum); }
  let sink = aux[params.sinks + head];
  let new_max = max(row_max, sink);
  let keep = exp(row_max - new_max);
  return Sunk(keep, fma(sum, keep, exp(sink - new_max)));
}
fn write_out(row: u32, head: u32, d: u32, o: f32, by: Sunk) {
  var v = 0.0; // of a row that only fills the batch up; a NaN goes on to the logits
  if (bitcast<u32>(by.sum) != 0u) { v = o * by.keep / by.sum; }
  if (params.gate_at != NONE) {
    let g = qkv[row * params.qkv_stride + params.gate_at + head * params.gate_stride + d];
    let finite = (bitcast<u32>(g) & 0x7f800000u) != 0x7f800000u; // else it stays what it is
    v *= select(g, 1.0 / (1.0 + exp(min(-g, 80.0))), finite);
  }
  out[row * params.out_stride + head * params.value_dim + d] = v;
}
fn out_quad(at: u32) -> vec4f { return vec4f(out[at], out[at + 1u], out[at + 2u], out[at + 3u]); }
/** Σ of a run of 32 of a head. */
fn write_sum(row: u32, head: u32, run: u32) {
  let at = row * params.out_stride + head * params.value_dim + run * 32u;
  var sum = out_quad(at);
  for (var j = 4u; j < 32u; j += 4u) { sum += out_quad(at + j); }
  out[params.out_sums + row * params.out_runs + head * (params.value_dim / 32u) + run] = sum4(sum);
}
/** Zeros behind the last head. */
fn write_padding(row: u32, lane: u32) {
  for (var i = params.heads * params.value_dim + lane; i < params.out_stride; i += WG) { out[row * params.out_stride + i] = 0.0; }
}`;
