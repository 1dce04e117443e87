/**
 * Norm, router and top-k of a mixture of experts: which experts a token goes to, and with what weights.
 *
 *   logit[e] = inverse_rms · Σ_k w[e, k] · x[k] + bias[e],   score = softmax or sigmoid of the logits, or the logits
 *   choice[e] = score[e] + correction[e], for experts of the best groups only
 *   chosen = the top_k greatest choices, ties to the lowest id;   weight[e] = scaling · score[e] (or its share, or softmax over the chosen)
 *
 * Shapes: x activation (rows, cols), multiplied by the norm's weight · w (experts, cols) in any layout, and a row that
 * gates the shared experts where there is one · aux holds biases f32 · route: kernels/moe/route.ts. Chosen experts come
 * highest weight first; the shared ones behind them have the ids from `experts` on, with weight 1 or their gate's sigmoid.
 * Source: transformers, the routers of qwen3_moe, gpt_oss, deepseek_v2, deepseek_v3.
 *
 * How: one workgroup a row. A lane owns four rows of w and a part of the columns, so that few experts still use all lanes;
 * parts depend on the matrix alone and are added left to right. An expert's place is the number of experts before it:
 * no sorting, no barrier a choice, and always a permutation, even of NaN. Grid: (rows, 1, 1).
 */
import { GROUP_SCALE, scaleTypeCode } from "../formats/group_scales.ts";
import { BLOCK_COLS, BLOCK_ROWS, EIGHT, type LayoutName, paddedRows, paramWords, runCount } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { FIXED_SUMS } from "../fragments/activation.ts";
import { NORM_PARAMS, normFragment, type StoredMatrix } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { MAX_EXPERTS, MAX_GROUPS, MAX_SLOTS } from "./route.ts";

/** What a logit becomes before experts are compared; "logits" have their softmax over the chosen ones. */
export const SCORES = ["softmax", "sigmoid", "logits"] as const;
export type Score = (typeof SCORES)[number];

/** How good a group of experts is: its best choice, or the sum of its two best. */
export const GROUP_SCORES = ["best", "two best"] as const;
export type GroupScore = (typeof GROUP_SCORES)[number];

const LANES = 256;

/** Params that say how the columns are cut: by the matrix alone, so that every row has one order of summation. */
export function partParams(matrix: StoredMatrix, rows: number) {
  const { cols, group } = matrix;
  const layout = layouts[matrix.layout];
  if (rows > MAX_EXPERTS) throw new RangeError(`router: ${rows} rows, expected at most ${MAX_EXPERTS}`);
  const span = layout.scaling === "none" ? BLOCK_COLS : group;
  const quads = paddedRows(rows) / 4;
  const groups = Math.ceil(cols / span);
  const parts = Math.min(2 ** Math.floor(Math.log2(LANES / quads)), groups);
  return {
    row_runs: runCount(cols),
    groups,
    group_steps: span / 8,
    scale_type: scaleTypeCode(layout, matrix),
    param_words: paramWords(layout, matrix),
    table: matrix.tableAt ?? 0,
    quads,
    parts,
    part_groups: Math.ceil(groups / parts),
  };
}

/** Norm, router, top-k for weights of a layout. */
export const router = variants((name: LayoutName) => {
  const layout = layouts[name];
  const columns = ["a.x", "a.y", "a.z", "a.w", "b.x", "b.y", "b.z", "b.w"];
  const { scaling } = layout;
  const sums = scaling === "affine"; // of x: what a bias is multiplied by
  return kernel({
    name: `router ${name}`,
    reads: { words: "vec4u", scales: "vec4u", x: "vec4f", aux: "f32" },
    writes: { route: "u32" },
    params: {
      ...NORM_PARAMS,
      /** Of x, in vec4f and in runs of 32. */
      x_stride: "u32",
      x_runs: "u32",
      row_runs: "u32",
      groups: "u32",
      /** Steps of 8 columns a group. */
      group_steps: "u32",
      scale_type: "u32",
      param_words: "u32",
      table: "u32",
      /** Quads of stored rows; parts of the columns; groups of columns a part. */
      quads: "u32",
      parts: "u32",
      part_groups: "u32",
      experts: "u32",
      top_k: "u32",
      slots: "u32",
      /** Row of w that gates the shared experts, or NONE. */
      gate_row: "u32",
      /** Index in SCORES. */
      score: "u32",
      /** Whether weights are divided by their sum, and the least it counts as. */
      renormalize: "u32",
      least_sum: "f32",
      scaling: "f32",
      bias: "u32",
      correction: "u32",
      n_group: "u32",
      topk_group: "u32",
      /** Index in GROUP_SCORES. */
      group_score: "u32",
      /** Of route: where weights and inverse_rms begin. */
      weights: "u32",
      inverses: "u32",
    },
    workgroup: LANES,
    code: /* wgsl */ `${EIGHT}${layout.prepare ?? ""}${layout.eight}${scaling === "none" ? "" : GROUP_SCALE[scaling]}${FIXED_SUMS}
fn x_at(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
${normFragment(1)}
var<workgroup> partial: array<vec4f, WG>;
var<workgroup> scores: array<f32, ${MAX_EXPERTS}>;
/** Choices in the order of u32s; before them, the softmax's exponentials. */
var<workgroup> keys: array<u32, ${MAX_EXPERTS}>;
var<workgroup> group_keys: array<u32, ${MAX_GROUPS}>;
var<workgroup> chosen: array<u32, ${MAX_SLOTS}>;
var<workgroup> listed: array<u32, ${MAX_SLOTS}>;
/** u32 in the order of the f32s, both zeros alike, above 0 for all but some NaN. */
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let plain = select(bits, 0u, bits == 0x80000000u);
  return select(plain | 0x80000000u, ~plain, (plain & 0x80000000u) != 0u);
}
fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(min(-v, 80.0))); }
/** Four rows' products over the part's groups of columns. */
fn dot_part(row: u32, quad: u32, part: u32) -> vec4f {
  let first = (quad / 8u) * params.row_runs * ${layout.runWords * 8}u + quad % 8u;
  var acc = vec4f();
${scaling === "none" ? "" : "  let s = (quad / 8u) * params.param_words * 8u + quad % 8u;"}
  for (var g = part * params.part_groups; g < min((part + 1u) * params.part_groups, params.groups); g++) {
    var d = vec4f();
${sums ? "    var quads = vec4f();" : ""}
    for (var i = 0u; i < params.group_steps; i++) {
      let t = g * params.group_steps + i;
      let e = eight(first + (t / 4u) * ${layout.runWords * 8}u, t % 4u);
      let a = x[row * params.x_stride + 2u * t];
      let b = x[row * params.x_stride + 2u * t + 1u];
${columns.map((column, i) => `      d = fma(e.q${i}, vec4f(${column}), d);`).join("\n")}
${sums ? "      quads += a;\n      quads += b;" : ""}
    }
${
  scaling === "none"
    ? "    acc += d;"
    : `    let gs = group_scale(s, g, params.groups, params.scale_type);
    acc = ${sums ? "fma(gs.bias, vec4f(sum4(quads)), fma(gs.scale, d, acc))" : "fma(gs.scale, d, acc)"};`
}
  }
  return acc;
}
/** Logits, scores in their place, and a key an expert. */
fn score_experts(lane: u32) {
  for (var e = lane; e < params.quads * 4u; e += WG) {
    var sum = partial[e / 4u][e % 4u];
    for (var p = 1u; p < params.parts; p++) { sum += partial[p * params.quads + e / 4u][e % 4u]; }
    var v = sum * inverse_rms[0];
    if (params.bias != NONE && e < params.experts) { v += aux[params.bias + e]; }
    scores[e] = v;
  }
  workgroupBarrier();
  if (params.score == 0u) {
    var most = scores[0];
    for (var e = 1u; e < params.experts; e++) { most = max(most, scores[e]); }
    for (var e = lane; e < params.experts; e += WG) { keys[e] = bitcast<u32>(exp(max(scores[e] - most, -100.0))); }
    workgroupBarrier();
    var total = 0.0;
    for (var e = 0u; e < params.experts; e++) { total += bitcast<f32>(keys[e]); }
    for (var e = lane; e < params.experts; e += WG) { scores[e] = bitcast<f32>(keys[e]) / total; }
    workgroupBarrier();
  }
  if (params.score == 1u) {
    for (var e = lane; e < params.experts; e += WG) { scores[e] = sigmoid(scores[e]); }
  }
  for (var e = lane; e < params.experts; e += WG) {
    var choice = scores[e];
    if (params.correction != NONE) { choice += aux[params.correction + e]; }
    keys[e] = key_of(choice);
  }
  workgroupBarrier();
}
fn key_of_group(group: u32) -> u32 {
  let size = params.experts / params.n_group;
  var first = 0u;
  var second = 0u;
  for (var i = 0u; i < size; i++) {
    let key = keys[group * size + i];
    second = max(second, min(first, key));
    first = max(first, key);
  }
  return select(first, key_of(value_of(first) + value_of(second)), params.group_score == 1u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}
/** Experts of groups that are not among the best come last. */
fn close_groups(lane: u32) {
  for (var g = lane; g < params.n_group; g += WG) { group_keys[g] = key_of_group(g); }
  workgroupBarrier();
  for (var e = lane; e < params.experts; e += WG) {
    let group = e / (params.experts / params.n_group);
    var better = 0u;
    for (var g = 0u; g < params.n_group; g++) {
      if (group_keys[g] > group_keys[group] || (group_keys[g] == group_keys[group] && g < group)) { better++; }
    }
    if (better >= params.topk_group) { keys[e] = 0u; }
  }
  workgroupBarrier();
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  norm_of_x(row, lane);
${layout.prepare === undefined ? "" : "  prepare(lane);"}
  if (lane < params.quads * params.parts) { partial[lane] = dot_part(row, lane % params.quads, lane / params.quads); }
  workgroupBarrier();
  score_experts(lane);
  close_groups(lane);
  for (var e = lane; e < params.experts; e += WG) {
    var place = 0u;
    for (var other = 0u; other < params.experts; other++) {
      if (keys[other] > keys[e] || (keys[other] == keys[e] && other < e)) { place++; }
    }
    if (place < params.top_k) { chosen[place] = e; }
  }
  workgroupBarrier();
  if (lane < params.top_k) {
    let e = chosen[lane];
    let key = key_of(scores[e]);
    var place = 0u;
    for (var i = 0u; i < params.top_k; i++) {
      let other = key_of(scores[chosen[i]]);
      if (other > key || (other == key && chosen[i] < e)) { place++; }
    }
    listed[place] = e;
  }
  workgroupBarrier();
  if (lane < params.top_k) {
    let best = scores[listed[0]];
    let e = listed[lane];
    var weight = scores[e];
    var total = 0.0;
    for (var i = 0u; i < params.top_k; i++) {
      let v = scores[listed[i]];
      total += select(v, exp(max(v - best, -100.0)), params.score == 2u);
    }
    if (params.score == 2u) { weight = exp(max(weight - best, -100.0)) / total; }
    else if (params.renormalize == 1u) { weight = weight / max(total, params.least_sum); }
    route[row * params.slots + lane] = e;
    route[params.weights + row * params.slots + lane] = bitcast<u32>(weight * params.scaling);
  } else if (lane < params.slots) {
    var weight = 1.0;
    if (params.gate_row != NONE) { weight = sigmoid(scores[params.gate_row]); }
    route[row * params.slots + lane] = params.experts + lane - params.top_k;
    route[params.weights + row * params.slots + lane] = bitcast<u32>(weight);
  }
  if (lane == 0u) { route[params.inverses + row] = bitcast<u32>(inverse_rms[0]); }
}`,
  });
});

/** Stored rows of the router's matrix where a gate of the shared experts follows from a block of its own on. */
export const gateRow = (experts: number): number => Math.ceil(experts / BLOCK_ROWS) * BLOCK_ROWS;
