/**
 * Gated delta rule, head by head: linear attention whose state S is a matrix that each token decays, corrects and reads, and the gated
 * norm of what it reads.
 *
 *   k = k / √(Σ k² + 1e-6), q = q / √(Σ q² + 1e-6) · scale,   beta = σ(b), decay = exp(−exp(A_log) · softplus(a + dt_bias))
 *   S = decay · S;   S = S + k ⊗ (beta · (v − Sᵀ k));   o = Sᵀ q
 *   out = o / √(Σ o² / value_dim + eps) · weight · silu(z)
 *
 * Shapes: x (rows, x_stride) f32 holds q and k (key heads, key_dim) and v (heads, value_dim) behind the convolution · p (rows, p_stride) f32
 * holds z (heads, value_dim), b and a (heads) · aux holds A_log and dt_bias (heads) and weight (value_dim) f32 ·
 * state (states, state_stride) f32, from `state_at` on (heads, key_dim, value_dim) · out activation (rows, heads · value_dim).
 * Source: Yang, Kautz & Hatamizadeh 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule", eq. 10.
 *
 * How: a workgroup has one head of one sequence and goes through its rows in order; a lane has columns of S, whose sums over key_dim
 * are its own and run upwards, so that no cut of the rows changes a bit. A sequence at position 0 has S = 0, whatever the buffer holds.
 * Rows that only fill the batch up get zeros. Grid: (heads, rows, 1).
 * Limits: key_dim and value_dim at most 256. Reads S twice and writes it once a row.
 */
import { FIXED_SUMS } from "../fragments/activation.ts";
import { ROW, SEQUENCE_ROWS } from "../fragments/batch.ts";
import { kernel } from "../kernel.ts";

/** Longest vector of a head that a workgroup holds. */
export const DELTA_DIM = 256;

/** The kernel of this file. */
export const deltaRule = kernel({
  name: "delta_rule",
  reads: { x: "f32", p: "f32", aux: "f32", batch: "u32" },
  writes: { state: "f32", out: "f32" },
  params: {
    rows: "u32",
    heads: "u32",
    /** Heads that share a query and a key. */
    group: "u32",
    key_dim: "u32",
    value_dim: "u32",
    /** A row of x, and where k and v begin in it; q is first. */
    x_stride: "u32",
    k_at: "u32",
    v_at: "u32",
    p_stride: "u32",
    z_at: "u32",
    b_at: "u32",
    a_at: "u32",
    /** In aux. */
    a_log: "u32",
    dt_bias: "u32",
    weight: "u32",
    scale: "f32",
    eps: "f32",
    state_stride: "u32",
    state_at: "u32",
    out_stride: "u32",
    out_runs: "u32",
    /** NONE where value_dim is no multiple of 32. */
    out_sums: "u32",
  },
  workgroup: 128,
  code: /* wgsl */ `${FIXED_SUMS}${SEQUENCE_ROWS}
var<workgroup> query: array<f32, ${DELTA_DIM}>;
var<workgroup> key: array<f32, ${DELTA_DIM}>;
var<workgroup> output: array<f32, ${DELTA_DIM}>;
/** Eight of the query's squares, or of the output's, then eight of the key's. */
var<workgroup> chains: array<f32, 16>;
fn added(first: u32) -> f32 {
  var total = chains[first];
  for (var i = 1u; i < 8u; i++) { total += chains[first + i]; }
  return total;
}
fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(min(-v, 80.0))); }
/** log(1 + exp(v)); log(1 + e) is 2 artanh(e / (2 + e)), whose series at 1/3 or less is exact to f32 with eight terms. */
fn softplus(v: f32) -> f32 {
  let e = exp(-min(abs(v), 80.0));
  let s = e / (2.0 + e);
  let t = s * s;
  var p = fma(t, 1.0 / 15.0, 1.0 / 13.0);
  p = fma(p, t, 1.0 / 11.0);
  p = fma(p, t, 1.0 / 9.0);
  p = fma(p, t, 1.0 / 7.0);
  p = fma(p, t, 1.0 / 5.0);
  p = fma(p, t, 1.0 / 3.0);
  p = fma(p, t, 1.0);
  return max(v, 0.0) + 2.0 * s * p;
}
/** The query and the key of a head, normed. */
fn load(row: u32, head: u32, lane: u32) {
  let at = row * params.x_stride + head / params.group * params.key_dim;
  for (var i = lane; i < params.key_dim; i += WG) {
    query[i] = x[at + i];
    key[i] = x[at + params.k_at + i];
  }
  workgroupBarrier();
  if (lane < 16u) {
    var sum = 0.0;
    for (var i = lane % 8u; i < params.key_dim; i += 8u) {
      let v = select(key[i], query[i], lane < 8u);
      sum = fma(v, v, sum);
    }
    chains[lane] = sum;
  }
  workgroupBarrier();
  let query_factor = 1.0 / sqrt(added(0u) + 1e-6) * params.scale;
  let key_factor = 1.0 / sqrt(added(8u) + 1e-6);
  for (var i = lane; i < params.key_dim; i += WG) {
    query[i] *= query_factor;
    key[i] *= key_factor;
  }
  workgroupBarrier();
}
/** Decays, corrects and reads the state; \`fresh\`: it is empty. */
fn recur(row: u32, head: u32, lane: u32, state_at: u32, fresh: bool) {
  let p_at = row * params.p_stride + head;
  let beta = sigmoid(p[p_at + params.b_at]);
  let decay = exp(-exp(aux[params.a_log + head]) * softplus(p[p_at + params.a_at] + aux[params.dt_bias + head]));
  for (var v = lane; v < params.value_dim; v += WG) {
    var held = 0.0;
    if (!fresh) {
      for (var i = 0u; i < params.key_dim; i++) {
        held = fma(decay * state[state_at + i * params.value_dim + v], key[i], held);
      }
    }
    let wanted = x[row * params.x_stride + params.v_at + head * params.value_dim + v];
    let delta = (wanted - held) * beta;
    var sum = 0.0;
    for (var i = 0u; i < params.key_dim; i++) {
      let at = state_at + i * params.value_dim + v;
      var s = 0.0;
      if (!fresh) { s = decay * state[at]; }
      s = fma(key[i], delta, s);
      state[at] = s;
      sum = fma(s, query[i], sum);
    }
    output[v] = sum;
  }
  workgroupBarrier();
}
/** The gated norm of the output, in place. */
fn gated_norm(row: u32, head: u32, lane: u32) {
  if (lane < 8u) {
    var sum = 0.0;
    for (var v = lane; v < params.value_dim; v += 8u) { sum = fma(output[v], output[v], sum); }
    chains[lane] = sum;
  }
  workgroupBarrier();
  let factor = 1.0 / sqrt(added(0u) / f32(params.value_dim) + params.eps);
  let z_at = row * params.p_stride + params.z_at + head * params.value_dim;
  for (var v = lane; v < params.value_dim; v += WG) {
    let z = p[z_at + v];
    output[v] = output[v] * factor * aux[params.weight + v] * (z / (1.0 + exp(min(-z, 80.0))));
  }
  workgroupBarrier();
}
fn write(row: u32, head: u32, lane: u32) {
  let at = row * params.out_stride + head * params.value_dim;
  for (var v = lane; v < params.value_dim; v += WG) { out[at + v] = output[v]; }
  if (params.out_sums != NONE && lane < params.value_dim / 32u) {
    let run = lane * 32u;
    var sum = vec4f(output[run], output[run + 1u], output[run + 2u], output[run + 3u]);
    for (var j = run + 4u; j < run + 32u; j += 4u) {
      sum += vec4f(output[j], output[j + 1u], output[j + 2u], output[j + 3u]);
    }
    out[params.out_sums + row * params.out_runs + head * (params.value_dim / 32u) + lane] = sum4(sum);
  }
  let end = params.heads * params.value_dim;
  if (head + 1u == params.heads && lane < params.out_stride - end) { out[row * params.out_stride + end + lane] = 0.0; }
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = wg.x;
  let first = wg.y;
  let owner = state_of(first);
  if (owner == NONE) {
    for (var v = lane; v < params.value_dim; v += WG) { output[v] = 0.0; }
    workgroupBarrier();
    write(first, head, lane);
    return;
  }
  if (goes_on(first)) { return; }
  let end = end_of(first);
  let state_at = owner * params.state_stride + params.state_at + head * params.key_dim * params.value_dim;
  for (var row = first; row < end; row++) {
    load(row, head, lane);
    recur(row, head, lane, state_at, row == first && row_word(first, ${ROW.position}u) == 0u);
    gated_norm(row, head, lane);
    write(row, head, lane);
  }
}`,
});
