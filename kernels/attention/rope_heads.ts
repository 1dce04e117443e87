/**
 * The shared first step of attention: qk-norm, rope, and the row's key and value into its page.
 *
 *   rope: (a, b) → (a·cos − b·sin, b·cos + a·sin),   pairs (i, i + rotary/2), or (2i, 2i + 1) where interleaved
 *
 * A workgroup has one row, one KV head and up to four of its query heads, which go through all of attention as the four
 * components of a vec4f, so that each key and value is read once for the four.
 * Source: Su et al. 2021, "RoFormer"; tables come from the CPU in f64, since sin and cos of some drivers are off by 1e-2.
 */

import { FIXED_SUMS } from "../fragments/activation.ts";
import { type HeadDim, ROW, ROW_WORDS } from "../fragments/batch.ts";
import { type KvType, kvDims, kvFragment } from "./kv_page.ts";

/** Query heads a workgroup. */
export const HEADS_A_UNIT = 4;

/** Workgroups a row: one for each four query heads of a KV head. */
export const unitsOf = (heads: number, kvHeads: number): number => kvHeads * Math.ceil(heads / kvHeads / HEADS_A_UNIT);

/** Params of the shared first step. */
export const HEAD_PARAMS = {
  heads: "u32",
  kv_heads: "u32",
  head_dim: "u32",
  /** u32 words of a head's vector in a page; of a page. */
  head_words: "u32",
  page_words: "u32",
  /** Of qkv, in f32s: a row, and where k and v begin in it. */
  qkv_stride: "u32",
  k_offset: "u32",
  v_offset: "u32",
  /** Dimensions that are rotated, and whether pairs are neighbours. */
  rotary_dim: "u32",
  interleaved: "u32",
  /** Weights of qk-norm in aux (head_dim), or NONE. */
  q_norm: "u32",
  k_norm: "u32",
  eps: "f32",
  /** Word of the block table in the row's record: one a cache group. */
  table_word: "u32",
  zero: "u32",
} as const;

/** Declares `row_field(row, field)`, `unit_of(wg.x)` and `q4`, the queries as a vec4f a dimension, one component a head. */
export function unitFragment(kvType: KvType, headDim: HeadDim): string {
  return /* wgsl */ `${FIXED_SUMS}${kvFragment(kvType)}
const ROW_WORDS = ${ROW_WORDS}u;
struct Unit { kv_head: u32, first_head: u32, heads: u32 }
var<workgroup> q4: array<vec4f, ${headDim}>;

fn row_field(row: u32, field: u32) -> u32 { return batch[row * ROW_WORDS + field]; }

fn unit_of(i: u32) -> Unit {
  let group = params.heads / params.kv_heads;
  let units = (group + 3u) / 4u;
  let first = (i % units) * 4u;
  return Unit(i / units, (i / units) * group + first, min(4u, group - first));
}`;
}

/**
 * Declares `load_heads(row, unit, lane)`, which fills `q4` and `key` with what is rotated, and `store_kv(row, unit, lane)`,
 * which writes the row's key and value. Both are called in uniform control flow, after `unitFragment`.
 */
export function headsFragment(kvType: KvType, headDim: HeadDim): string {
  const dims = kvDims(kvType);
  return /* wgsl */ `
var<workgroup> head_chains: array<f32, 40>;
var<workgroup> head_rms: array<f32, 5>;
/** The rotated key of the row. */
var<workgroup> key: array<f32, ${headDim}>;
/** Σ x² of five heads (four q, one k) in eight chains each; 1 where there is no norm. */
fn norm_heads(row: u32, unit: Unit, lane: u32) {
  let base = row * params.qkv_stride;
  for (var i = lane; i < 40u; i += WG) {
    let head = i / 8u;
    var at = base + (unit.first_head + head) * params.head_dim;
    var live = head < unit.heads && params.q_norm != NONE;
    if (head == 4u) {
      at = base + params.k_offset + unit.kv_head * params.head_dim;
      live = params.k_norm != NONE;
    }
    var sum = 0.0;
    if (live) {
      for (var d = i % 8u; d < params.head_dim; d += 8u) { let v = qkv[at + d]; sum = fma(v, v, sum); }
    }
    head_chains[i] = sum;
  }
  workgroupBarrier();
  if (lane < 5u) {
    let c = lane * 8u;
    var total = head_chains[c];
    for (var i = 1u; i < 8u; i++) { total += head_chains[c + i]; }
    head_rms[lane] = 1.0 / sqrt(total / f32(params.head_dim) + params.eps);
  }
  workgroupBarrier();
}
fn normed(at: u32, d: u32, norm: u32, rms: f32) -> f32 {
  let v = qkv[at + d];
  if (norm == NONE) { return v; }
  return v * rms * aux[norm + d];
}
/** Dimension d of a head, normed and rotated. */
fn rotated(at: u32, d: u32, norm: u32, rms: f32, table: u32) -> f32 {
  let v = normed(at, d, norm, rms);
  if (d >= params.rotary_dim) { return v; }
  let half = params.rotary_dim / 2u;
  var pair = d % half;
  var other = select(d - half, d + half, d < half);
  var first = d < half;
  if (params.interleaved == 1u) {
    pair = d / 2u;
    other = d ^ 1u;
    first = (d & 1u) == 0u;
  }
  let w = normed(at, other, norm, rms) * rope[table + half + pair];
  return fma(v, rope[table + pair], select(w, -w, first));
}
fn load_heads(row: u32, unit: Unit, lane: u32) {
  norm_heads(row, unit, lane);
  let table = row_field(row, ${ROW.rope}u) * params.rotary_dim;
  for (var d = lane; d < params.head_dim; d += WG) {
    var q = vec4f();
    for (var h = 0u; h < 5u; h++) {
      if (h >= unit.heads && h < 4u) { continue; }
      let is_key = h == 4u;
      let offset = select((unit.first_head + h) * params.head_dim, params.k_offset + unit.kv_head * params.head_dim, is_key);
      let v = rotated(row * params.qkv_stride + offset, d, select(params.q_norm, params.k_norm, is_key), head_rms[h], table);
      if (is_key) { key[d] = v; } else { q[h] = v; }
    }
    q4[d] = q;
  }
  workgroupBarrier();
}
fn store_kv(row: u32, unit: Unit, lane: u32) {
  let slot = row_field(row, ${ROW.slot}u);
  if (slot == NONE) { return; }
  let v = row * params.qkv_stride + params.v_offset + unit.kv_head * params.head_dim;
  for (var w = lane; w < params.head_words; w += WG) {
    let d = w * ${dims}u;
    kv[k_at(slot / PAGE, unit.kv_head, w, slot % PAGE)] = kv_word(key[d], key[d + ${dims - 1}u]);
    kv[v_at(slot / PAGE, unit.kv_head, w, slot % PAGE)] = kv_word(qkv[v + d], qkv[v + d + ${dims - 1}u]);
  }
}`;
}
