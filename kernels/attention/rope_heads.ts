/**
 * The shared first step of attention: qk-norm, clip, rope, and the row's key and value into its page.
 *
 *   norm: v · w / √(mean(v²) + eps), or (v − mean(v)) · w / √(mean((v − mean(v))²) + eps) + b, a head at a time, before rope or after it
 *   rope: (a, b) → (a·cos − b·sin, b·cos + a·sin),   pairs (i, i + rotary/2), or (2i, 2i + 1) where interleaved
 *
 * A workgroup has one row, one KV head and 4 or 8 of its query heads, which go through all of attention as components of
 * vec4fs, so that each key and value is read once for all of them.
 * Source: Su et al. 2021, "RoFormer"; tables come from the CPU in f64, since sin and cos of some drivers are off by 1e-2.
 */

import { FIXED_SUMS } from "../fragments/activation.ts";
import { type HeadDim, ROW, ROW_WORDS } from "../fragments/batch.ts";
import { kvFragment } from "./kv_page.ts";
import { type KvType, kvNumbers, numbersOf } from "./kv_types.ts";

/** Queries of a workgroup in fours: components of as many vec4fs. */
export type Quads = 1 | 2;

/** Workgroups a row: one for each 4 · quads query heads of a KV head. */
export const unitsOf = (heads: number, kvHeads: number, quads: Quads): number =>
  kvHeads * Math.ceil(heads / kvHeads / (4 * quads));

/** Values of the param `norm`. */
export const NORM = { none: 0, rms: 1, layer: 2 } as const;

/** Params of the shared first step. */
export const HEAD_PARAMS = {
  heads: "u32",
  kv_heads: "u32",
  /** Of queries and keys; of values. */
  head_dim: "u32",
  value_dim: "u32",
  /** u32 words of a head's key (keyWords) and value in a page; of a page; and where values begin in it. */
  head_words: "u32",
  value_words: "u32",
  page_words: "u32",
  value_base: "u32",
  /** Of qkv, in f32s: a row; where queries, keys and values begin in it, and from one head's to the next. */
  qkv_stride: "u32",
  q_at: "u32",
  q_stride: "u32",
  k_at: "u32",
  k_stride: "u32",
  v_at: "u32",
  v_stride: "u32",
  /** Dimensions that are rotated, and whether pairs are neighbours. */
  rotary_dim: "u32",
  interleaved: "u32",
  /** Which norm a head has (NORM), and whether it comes after rope. */
  norm: "u32",
  norm_after: "u32",
  /** Its weights in aux, or NONE; from one head's to the next, 0 where they share them. */
  q_norm: "u32",
  k_norm: "u32",
  norm_stride: "u32",
  /** Its biases in aux, one set for all heads, or NONE. */
  q_bias: "u32",
  k_bias: "u32",
  eps: "f32",
  /** Queries, keys and values are clamped to ±clip, behind a norm and before rope; 0 for none. */
  clip: "f32",
  /** Word of the block table in the row's record: one a cache group. */
  table_word: "u32",
  zero: "u32",
} as const;

/** Declares `row_field(row, field)`, `unit_of(wg.x)` and `q4`, the queries as `quads` vec4fs a dimension, one component a head. */
export function unitFragment(kvType: KvType, headDim: number, quads: Quads, latent = false): string {
  return /* wgsl */ `${FIXED_SUMS}${kvFragment(kvType, latent ? "latent" : "own")}
const ROW_WORDS = ${ROW_WORDS}u;
/** Vectors of four queries, and query heads of a workgroup. */
const QUADS = ${quads}u;
const HEADS = ${4 * quads}u;
struct Unit { kv_head: u32, first_head: u32, heads: u32 }
var<workgroup> q4: array<vec4f, ${headDim * quads}>;

fn row_field(row: u32, field: u32) -> u32 { return batch[row * ROW_WORDS + field]; }

fn unit_of(i: u32) -> Unit {
  let group = params.heads / params.kv_heads;
  let units = (group + HEADS - 1u) / HEADS;
  let first = (i % units) * HEADS;
  return Unit(i / units, (i / units) * group + first, min(HEADS, group - first));
}`;
}

/** Declares `turn_of(d, table)`: how dimension d of a head turns by the row of `rope` that begins at `table`. */
export const TURN = /* wgsl */ `/** Which dimension d is paired with, and how it turns; the first of a pair has its sine negative. */
struct Turn { other: u32, cos: f32, sin: f32 }
fn turn_of(d: u32, table: u32) -> Turn {
  if (d >= params.rotary_dim) { return Turn(d, 1.0, 0.0); }
  let half = params.rotary_dim / 2u;
  var pair = d % half;
  var other = select(d - half, d + half, d < half);
  var first = d < half;
  if (params.interleaved == 1u) {
    pair = d / 2u;
    other = d ^ 1u;
    first = (d & 1u) == 0u;
  }
  let sine = rope[table + half + pair];
  return Turn(other, rope[table + pair], select(sine, -sine, first));
}`;

/**
 * Loops end with their conditions: one driver runs a loop that begins with it once more than it counts, and the body is long.
 *
 * Declares `load_heads(row, unit, lane)`, which fills `q4` and `key` with what is rotated, and `store_kv(row, unit, lane)`,
 * which writes the row's key and value. Both are called in uniform control flow, after `unitFragment`.
 */
export function headsFragment(kvType: KvType, headDim: HeadDim, quads: Quads): string {
  const { dims, scaled } = kvNumbers[kvType];
  const top = (which: number) => (scaled ? `, top_of(${which}u)` : "");
  return /* wgsl */ `
/** Of the heads of q and behind them the one of k: eight chains each, what the norm takes off, what it multiplies by. */
var<workgroup> head_chains: array<f32, ${8 * (4 * quads + 1)}>;
var<workgroup> head_mean: array<f32, ${4 * quads + 1}>;
var<workgroup> head_factor: array<f32, ${4 * quads + 1}>;
/** The rotated key of the row. */
var<workgroup> key: array<f32, ${headDim}>;
/** Where a head begins in qkv, and its norm's weights and biases in aux. */
struct Head { at: u32, weights: u32, biases: u32, mean: f32, factor: f32 }
fn head_of(row: u32, unit: Unit, h: u32) -> Head {
  let base = row * params.qkv_stride;
  var at = base + params.q_at + (unit.first_head + h) * params.q_stride;
  var weights = params.q_norm;
  var biases = params.q_bias;
  var index = unit.first_head + h;
  if (h == HEADS) {
    at = base + params.k_at + unit.kv_head * params.k_stride;
    weights = params.k_norm;
    biases = params.k_bias;
    index = unit.kv_head;
  }
  if (weights != NONE) { weights += index * params.norm_stride; }
  if (params.norm == ${NORM.none}u) { return Head(at, NONE, NONE, 0.0, 1.0); }
  return Head(at, weights, biases, head_mean[h], head_factor[h]);
}
${TURN}
/** What is NaN or infinite stays so: a clamp would make a number of it. */
fn clipped(v: f32) -> f32 {
  if (params.clip <= 0.0 || (bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u) { return v; }
  return clamp(v, -params.clip, params.clip);
}
fn normed(head: Head, v: f32, d: u32) -> f32 {
  if (params.norm == ${NORM.none}u) { return v; }
  let n = (v - head.mean) * head.factor;
  if (head.weights == NONE) { return n; }
  let w = n * aux[head.weights + d];
  if (head.biases == NONE) { return w; }
  return w + aux[head.biases + d];
}
fn before_rope(head: Head, d: u32) -> f32 {
  let v = qkv[head.at + d];
  if (params.norm_after == 1u) { return clipped(v); }
  return clipped(normed(head, v, d));
}
fn turned(head: Head, d: u32, turn: Turn) -> f32 {
  let v = before_rope(head, d);
  if (turn.other == d) { return v; }
  return fma(v, turn.cos, before_rope(head, turn.other) * turn.sin);
}
fn rotated(head: Head, d: u32, turn: Turn) -> f32 {
  let v = turned(head, d, turn);
  if (params.norm_after == 1u) { return normed(head, v, d); }
  return v;
}
/** Σ v, or Σ (v - mean)², of each head in eight chains, added left to right; \`head_chains\` is free again behind it. */
fn add_heads(row: u32, unit: Unit, lane: u32, squares: bool) -> f32 {
  let table = row_field(row, ${ROW.rope}u) * params.rotary_dim;
  for (var i = lane; i < 8u * (HEADS + 1u); i += WG) {
    let h = i / 8u;
    let head = head_of(row, unit, h);
    var sum = 0.0;
    if (h < unit.heads || h == HEADS) {
      for (var d = i % 8u; d < params.head_dim; d += 8u) {
        var v = 0.0;
        if (params.norm_after == 1u) { v = turned(head, d, turn_of(d, table)); } else { v = qkv[head.at + d]; }
        if (squares) { let c = v - head.mean; sum = fma(c, c, sum); } else { sum += v; }
      }
    }
    head_chains[i] = sum;
  }
  workgroupBarrier();
  var total = 0.0;
  if (lane <= HEADS) {
    total = head_chains[lane * 8u];
    for (var i = 1u; i < 8u; i++) { total += head_chains[lane * 8u + i]; }
  }
  workgroupBarrier();
  return total / f32(params.head_dim);
}
fn norm_heads(row: u32, unit: Unit, lane: u32) {
  if (params.norm == ${NORM.none}u) { return; }
  if (params.norm == ${NORM.layer}u) {
    let mean = add_heads(row, unit, lane, false);
    if (lane <= HEADS) { head_mean[lane] = mean; }
    workgroupBarrier();
  }
  let square = add_heads(row, unit, lane, true);
  if (lane <= HEADS) { head_factor[lane] = 1.0 / sqrt(square + params.eps); }
  workgroupBarrier();
}
fn load_heads(row: u32, unit: Unit, lane: u32) {
  norm_heads(row, unit, lane);
  let table = row_field(row, ${ROW.rope}u) * params.rotary_dim;
  var d = lane;
  loop {
    if (d < params.head_dim) {
      let turn = turn_of(d, table);
      var quad = 0u;
      loop {
        var q = vec4f();
        var h = 0u;
        loop {
          q[h] = select(0.0, rotated(head_of(row, unit, 4u * quad + h), d, turn), 4u * quad + h < unit.heads);
          h++;
          continuing { break if h == 4u || 4u * quad + h >= unit.heads; }
        }
        q4[d * QUADS + quad] = q;
        quad++;
        continuing { break if quad == QUADS; }
      }
      key[d] = rotated(head_of(row, unit, HEADS), d, turn);
    }
    d += WG;
    continuing { break if d >= params.head_dim; }
  }
  workgroupBarrier();
}
${scaled ? TOPS : ""}
fn store_kv(row: u32, unit: Unit, lane: u32) {
  if (row_field(row, ${ROW.slot}u) == NONE) { return; }
  // The batch's slot is of the first cache group; a layer of another has a page of its own.
  let position = row_field(row, ${ROW.position}u);
  let slot = batch[row_field(row, params.table_word) + position / PAGE] * PAGE + position % PAGE;
  let v = row * params.qkv_stride + params.v_at + unit.kv_head * params.v_stride;
${scaled ? STORE_SCALES : ""}
  var w = lane;
  loop {
    let d = w * ${dims}u;
    if (d < params.head_dim) {
      kv[k_at(slot / PAGE, unit.kv_head, w, slot % PAGE)] = kv_word(${numbersOf(kvType, (i) => `key[d + ${i}u]`)}${top(0)});
    }
    if (d < params.value_dim) {
      kv[v_at(slot / PAGE, unit.kv_head, w, slot % PAGE)] = kv_word(${numbersOf(kvType, (i) => `clipped(qkv[v + d + ${i}u])`)}${top(1)});
    }
    w += WG;
    continuing { break if w * ${dims}u >= max(params.head_dim, params.value_dim); }
  }
}`;
}

/**
 * Greatest magnitudes of the row's key and value by their bits, which are in the numbers' order, in eight chains each. No atomic maximum: AMD's
 * compiler makes a reduction of that whose registers lie behind all others.
 */
const TOPS = /* wgsl */ `
var<workgroup> tops: array<u32, 16>;
fn magnitude(v: f32) -> u32 { return bitcast<u32>(v) & 0x7fffffffu; }
fn top_of(which: u32) -> u32 {
  var top = tops[8u * which];
  for (var i = 1u; i < 8u; i++) { top = max(top, tops[8u * which + i]); }
  return top;
}`;

/** Finds them, and stores the scales that they make. */
const STORE_SCALES = /* wgsl */ `
  for (var i = lane; i < 16u; i += WG) {
    var top = 0u;
    if (i < 8u) {
      for (var d = i; d < params.head_dim; d += 8u) { top = max(top, magnitude(key[d])); }
    } else {
      for (var d = i - 8u; d < params.value_dim; d += 8u) { top = max(top, magnitude(clipped(qkv[v + d]))); }
    }
    tops[i] = top;
  }
  workgroupBarrier();
  if (lane == 0u) {
    kv[k_scale_at(slot / PAGE, unit.kv_head, slot % PAGE)] = kv_scale(top_of(0u));
    kv[v_scale_at(slot / PAGE, unit.kv_head, slot % PAGE)] = kv_scale(top_of(1u));
  }`;
