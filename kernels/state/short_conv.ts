/**
 * Causal depthwise convolution over the last `taps` tokens of a sequence, gated or with an activation, and the state that it keeps of them.
 *
 *   u[t, c] = before[t, c] · x[t, c]
 *   out[t, c] = after[t, c] · act(bias[c] + Σ_j weight[j, c] · u[t − taps + 1 + j, c]),   j = 0 … taps − 1, u = 0 before the sequence
 *
 * Shapes: x (rows, x_stride) f32, the columns of x, before and after among them, zero behind their channels · aux holds weight (taps, stride)
 * and bias (stride) f32, zero behind the channels · state (states, taps − 1, stride) f32: u of the tokens before, oldest first ·
 * out activation (rows, channels), with sums. Without `before` or `after` the factor is 1.
 * Sources: Liquid AI 2025, "LFM2 Technical Report" (short convolutions with a gate on both sides); Yang et al. 2024, "Gated Delta Networks".
 *
 * How: a workgroup has a run of 32 channels of one sequence, from its first row in the step on, eight rows at once. A row takes u of earlier
 * rows from x where the step has them, else from the state, which is written behind the last read of it. A sequence at position 0 has an
 * empty state, whatever the buffer holds. Rows that only fill the batch up get zeros. Grid: (runs, rows, 1).
 */
import { ACTIVATE } from "../fragments/act.ts";
import { FIXED_SUMS } from "../fragments/activation.ts";
import { ROW, SEQUENCE_ROWS } from "../fragments/batch.ts";
import { kernel } from "../kernel.ts";

/** The kernel of this file. */
export const shortConv = kernel({
  name: "short_conv",
  reads: { x: "vec4f", aux: "vec4f", batch: "u32" },
  writes: { state: "vec4f", out: "f32" },
  params: {
    rows: "u32",
    taps: "u32",
    activation: "u32",
    /** All in vec4f: a row of x; where x, before and after begin in it, the latter two NONE where there are none. */
    x_stride: "u32",
    x_at: "u32",
    before: "u32",
    after: "u32",
    /** In aux; bias NONE where there is none. */
    weight: "u32",
    bias: "u32",
    /** Of a sequence, from one to the next. */
    state_stride: "u32",
    /** In f32s: a row of out; runs a row; where its sums begin, or NONE. */
    stride: "u32",
    runs: "u32",
    sums: "u32",
  },
  workgroup: 64,
  code: /* wgsl */ `${ACTIVATE}${FIXED_SUMS}${SEQUENCE_ROWS}
var<workgroup> quads: array<vec4f, WG>;
/** Of a run: its channels are eight quads. */
const QUADS = 8u;
const ROWS = WG / QUADS;
struct Sequence { first: u32, end: u32, state: u32, fresh: bool }
fn entry(row: u32, quad: u32) -> vec4f {
  let at = row * params.x_stride + quad;
  if (params.before == NONE) { return x[at + params.x_at]; }
  return x[at + params.before] * x[at + params.x_at];
}
/** u of \`back\` tokens before a row. */
fn earlier(sequence: Sequence, row: u32, back: u32, quad: u32) -> vec4f {
  let since = row - sequence.first;
  if (back <= since) { return entry(row - back, quad); }
  if (sequence.fresh) { return vec4f(); }
  return state[sequence.state + (params.taps - 1u - (back - since)) * (params.stride / 4u) + quad];
}
fn convolved(sequence: Sequence, row: u32, quad: u32) -> vec4f {
  var sum = vec4f();
  if (params.bias != NONE) { sum = aux[params.bias + quad]; }
  for (var j = 0u; j < params.taps; j++) {
    sum = fma(aux[params.weight + j * (params.stride / 4u) + quad], earlier(sequence, row, params.taps - 1u - j, quad), sum);
  }
  let v = activate(sum, params.activation);
  if (params.after == NONE) { return v; }
  return v * x[row * params.x_stride + params.after + quad];
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = wg.y;
  let owner = state_of(first);
  if (owner != NONE && goes_on(first)) { return; }
  var sequence = Sequence(first, first + 1u, 0u, true);
  if (owner != NONE) {
    sequence = Sequence(first, end_of(first), owner * params.state_stride, row_word(first, ${ROW.position}u) == 0u);
  }
  let quad = wg.x * QUADS + lane % QUADS;
  for (var begin = first; begin < sequence.end; begin += ROWS) {
    let row = begin + lane / QUADS;
    var v = vec4f();
    if (row < sequence.end) {
      if (owner != NONE) { v = convolved(sequence, row, quad); }
      for (var c = 0u; c < 4u; c++) { out[row * params.stride + 4u * quad + c] = v[c]; }
    }
    quads[lane] = v;
    workgroupBarrier();
    if (params.sums != NONE && lane % QUADS == 0u && row < sequence.end) {
      var sum = quads[lane];
      for (var i = 1u; i < QUADS; i++) { sum += quads[lane + i]; }
      out[params.sums + row * params.runs + wg.x] = sum4(sum);
    }
    workgroupBarrier();
  }
  storageBarrier();
  if (owner == NONE || lane >= QUADS) { return; }
  // Oldest first: each takes its value from further on, so none is overwritten before it is read.
  for (var i = 0u; i + 1u < params.taps; i++) {
    state[sequence.state + i * (params.stride / 4u) + quad] = earlier(sequence, sequence.end - 1u, params.taps - 2u - i, quad);
  }
}`,
});
