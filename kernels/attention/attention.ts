/**
 * Attention of new rows over a paged cache.
 *
 *   out[t, h] = Σ_j softmax_j(cap(scale · q[t, h] · k[j])) · v[j],   max(0, length − window) ≤ j < length
 *
 * Shapes: qkv (rows, qkv_stride) f32 · kv pages (kv_page.ts) · aux holds sinks (heads) f32 · batch u32 (batch.ts) ·
 * out activation (rows, heads · value_dim), times sigmoid(gate) where there is one · partials (rows of the launch, heads,
 * splits, value_dim + 2) f32.
 * Sources: Dao et al. 2022, "FlashAttention", alg. 1; Kwon et al. 2023, "PagedAttention", §4.1.
 *
 * How: one workgroup a KV head, up to 4 · quads of its queries, and split of 256 keys at an absolute position. Queries are the
 * components of vec4fs, so that a key or value is read once for all of them: the query heads of one row (`attentionFused`), or
 * those of several rows of a sequence (`attentionPaged`, which then masks where the rows do not all see a key). A lane has whole keys for
 * the scores (scores.ts), then whole dimensions for p · V in key order (values.ts); blocks of 32 keys are folded left to right.
 * A row with one split is finished here, one with several by `attention_reduce`.
 * `attentionFused` does qk-norm, rope and the KV write of its row first: right where a sequence has one row in the step;
 * `attentionPaged` finds them done by `rope_kv`, and so does `attentionRow`, its sibling of one row for software drivers: what only reads
 * keys can read them by 128 bits, and there a dispatch more costs less than the same rope in each split.
 * Limits: head_dim and value_dim even and ≤ 256. Grid: (units, rows of the launch, max(splits, 1)).
 */
import { type HeadDim, KEY_BLOCK, KEY_SPLIT, ROW } from "../fragments/batch.ts";
import { xSuffix } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { FINISH, FINISH_PARAMS, MASKED, PARTIAL_AT } from "./finish.ts";
import type { KvType } from "./kv_types.ts";
import { HEAD_PARAMS, headsFragment, type Quads, unitFragment } from "./rope_heads.ts";
import { scoresFragment } from "./scores.ts";
import { each, type QueriesFrom, type Tile } from "./tile.ts";
import { valuesFragment } from "./values.ts";

const PARAMS = {
  ...HEAD_PARAMS,
  ...FINISH_PARAMS,
  scale: "f32",
  /** 0 for none. */
  softcap: "f32",
  /** Keys that a row sees, its own included; NONE for all. */
  window: "u32",
} as const;

/** Vectors of four queries where a workgroup has one row: all heads of a KV head, up to eight, of which each value costs registers. */
export const fusedQuads = (heads: number, kvHeads: number): Quads => (heads / kvHeads <= 4 ? 1 : 2);
/** Where it has several rows: with twice as many queries software adapters compile for most of a minute. */
export const PAGED_QUADS: Quads = 2;

/** For steps in which every sequence has one row: ropes and stores its own key first. */
export const attentionFused = variants((kvType: KvType, headDim: HeadDim, quads: Quads) =>
  kernel({
    name: `attention_fused ${kvType} head_dim<=${headDim}${quads > 1 ? " wide" : ""}`,
    reads: { qkv: "f32", rope: "f32", aux: "f32", batch: "u32" },
    writes: { kv: "u32", out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: 64,
    code:
      headsFragment(kvType, headDim, quads) +
      attentionCode(
        { kvType, headDim, quads, subgroups: false, rows: false },
        /* wgsl */ `
  load_heads(row, unit, lane);
  if (split == (length - 1u) / SPLIT) { store_kv(row, unit, lane); }
  storageBarrier();`,
      ),
  }),
);

/** The same behind `rope_kv`, by broadcasts. */
export const attentionRow = variants((kvType: KvType, headDim: HeadDim, quads: Quads) =>
  kernel({
    name: `attention_row ${kvType} head_dim<=${headDim}${quads > 1 ? " wide" : ""} broadcast`,
    reads: { qkv: "f32", kv: "vec4u", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: 64,
    subgroups: true,
    code: attentionCode({ kvType, headDim, quads, subgroups: true, rows: false }, LOAD_QUERIES),
  }),
);

/** For steps with several rows a sequence, after `rope_kv`. */
export const attentionPaged = variants((kvType: KvType, headDim: HeadDim, from: QueriesFrom) =>
  kernel({
    name: `attention_paged ${kvType} head_dim<=${headDim}${xSuffix(from)}`,
    reads: { qkv: "f32", kv: from === "broadcast" ? "vec4u" : "u32", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: 64,
    subgroups: from === "broadcast",
    code: attentionCode(
      { kvType, headDim, quads: PAGED_QUADS, subgroups: from === "broadcast", rows: true },
      LOAD_QUERIES,
    ),
  }),
);

/** Fills `q4` with queries that are ready in qkv. */
export const LOAD_QUERIES = /* wgsl */ `
  for (var i = lane; i < params.head_dim * QUADS; i += WG) {
    var q = vec4f();
    for (var c = 0u; c < 4u; c++) {
      let query = i % QUADS * 4u + c;
      if (query >= queries) { break; }
      let at = (row + query / unit.heads) * params.qkv_stride + params.q_at;
      q[c] = qkv[at + (unit.first_head + query % unit.heads) * params.q_stride + i / QUADS];
    }
    q4[i] = q;
  }
  workgroupBarrier();`;

/** The whole kernel; `prepare` fills `q4`. */
export function attentionCode(tile: Tile, prepare: string): string {
  const { kvType, headDim, quads, subgroups, latent } = tile;
  return /* wgsl */ `${unitFragment(kvType, headDim, quads, latent)}${PARTIAL_AT}${FINISH}
const BLOCK = ${KEY_BLOCK}u;
const SPLIT = ${KEY_SPLIT}u;
/** Keys that are scored at once, and blocks of them. */
const CHUNK = ${KEY_SPLIT / quads}u;
const BLOCKS = ${KEY_SPLIT / quads / KEY_BLOCK}u;
/** By key and quad: maxima of lanes, then exponentials. */
var<workgroup> p: array<vec4f, ${KEY_SPLIT}>;
/** By block and quad: its maximum, its sum, and how it is folded. */
var<workgroup> block_max: array<vec4f, 8>;
var<workgroup> block_sum: array<vec4f, 8>;
var<workgroup> keeps: array<vec4f, 8>;
var<workgroup> takes: array<vec4f, 8>;
/** By quad: sum of exponentials and maximum of the split. */
var<workgroup> split_sum: array<vec4f, ${quads}>;
var<workgroup> split_max: array<vec4f, ${quads}>;

fn kv_at(word: u32) -> u32 { return ${subgroups ? "kv[word / 4u][word % 4u]" : "kv[word]"}; }
fn page_of(row: u32, key: u32) -> u32 { return batch[row_field(row, params.table_word) + key / PAGE]; }
/** What is NaN or infinite, by its bits: drivers make numbers of such a score in max, exp and comparisons. */
fn broken(s: vec4f) -> vec4<bool> { return (bitcast<vec4u>(s) & vec4u(0x7f800000u)) == vec4u(0x7f800000u); }
fn low_of(length: u32) -> u32 { return select(0u, length - params.window, params.window < length); }
${tile.rows ? SPAN : ""}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32${subgroups ? ", @builtin(subgroup_invocation_id) sub: u32" : ""}) {
  let row = params.first_row + wg.y;
  let unit = unit_of(wg.x);
  let split = wg.z;
  let length = row_field(row, ${ROW.length}u);
${
  tile.rows
    ? /* wgsl */ `  let rows = span_of(row, wg.y, HEADS / unit.heads);
  if (rows == 0u) { return; }
  let last = length + rows - 1u;`
    : /* wgsl */ `  let rows = 1u;
  let last = length;`
}
  let queries = rows * unit.heads;
  let low = low_of(length);
  if (params.splits > 0u && (split * SPLIT >= last || (split + 1u) * SPLIT <= low)) { return; }${prepare}
${
  tile.rows
    ? each(
        quads,
        (q) => /* wgsl */ `
  let lengths${q} = select(vec4u(), vec4u(length) + (vec4u(${4 * q}, ${4 * q + 1}, ${4 * q + 2}, ${4 * q + 3}) / unit.heads), vec4u(${4 * q}, ${4 * q + 1}, ${4 * q + 2}, ${4 * q + 3}) < vec4u(queries));
  let lows${q} = select(vec4u(), lengths${q} - vec4u(params.window), vec4u(params.window) < lengths${q});`,
      )
    : ""
}
  let begin = max(low, split * SPLIT);
  let end = min(last, (split + 1u) * SPLIT);
  var fold_max = vec4f(${MASKED}); // of lanes below QUADS
  var fold_sum = vec4f();
${valuesFragment.declare(tile)}
  for (var chunk = begin / CHUNK * CHUNK; chunk < end; chunk += CHUNK) {
    let first_block = select(0u, (begin - chunk) / BLOCK, begin > chunk);
    let end_block = min((end - chunk + BLOCK - 1u) / BLOCK, BLOCKS);
${scoresFragment(tile)}
    if (lane < QUADS) {
      for (var b = first_block; b < end_block; b++) {
        let new_max = max(fold_max, block_max[b * QUADS + lane]);
        keeps[b * QUADS + lane] = exp(fold_max - new_max);
        takes[b * QUADS + lane] = exp(block_max[b * QUADS + lane] - new_max);
        fold_max = new_max;
      }
    }
    workgroupBarrier();
    if (lane < BLOCKS * QUADS && lane / QUADS >= first_block && lane / QUADS < end_block) {
      var sum = vec4f();
      for (var j = 0u; j < BLOCK; j++) { sum += p[(lane / QUADS * BLOCK + j) * QUADS + lane % QUADS]; }
      block_sum[lane] = sum;
    }
${valuesFragment.weigh(tile)}${valuesFragment.fold(tile)}
    workgroupBarrier();
    if (lane < QUADS) {
      for (var b = first_block; b < end_block; b++) {
        fold_sum = fma(fold_sum, keeps[b * QUADS + lane], block_sum[b * QUADS + lane] * takes[b * QUADS + lane]);
      }
    }
  }
  if (lane < QUADS) {
    split_sum[lane] = fold_sum;
    split_max[lane] = fold_max;
  }
${valuesFragment.leave(tile)}
  workgroupBarrier();
  for (var i = lane; i < queries * params.value_dim; i += WG) {
    let query = i / params.value_dim;
    let d = i % params.value_dim;
    let o = q4[d * QUADS + query / 4u][query % 4u];
    let query_row = row + query / unit.heads;
    let head = unit.first_head + query % unit.heads;
    let sum = split_sum[query / 4u][query % 4u];
    let row_max = split_max[query / 4u][query % 4u];
    if (params.splits == 0u) {
      write_out(query_row, head, d, o, sunk(row_max, sum, head));
      continue;
    }
    let at = partial_at(query_row, head, split);
    partials[at + d] = o;
    if (d == 0u) {
      partials[at + params.value_dim] = sum;
      partials[at + params.value_dim + 1u] = row_max;
    }
  }
  storageBarrier();
  if (params.splits > 0u) { return; }
  if (params.out_sums != NONE) {
    let runs = params.value_dim / 32u;
    for (var i = lane; i < queries * runs; i += WG) {
      let query = i / runs;
      write_sum(row + query / unit.heads, unit.first_head + query % unit.heads, i % runs);
    }
  }
  if (wg.x == params.units - 1u) {
    for (var r = 0u; r < rows; r++) { write_padding(row + r, lane); }
  }
}`;
}

/** Rows of one sequence that a workgroup takes together: from a row on whose position is a multiple of `most`. */
const SPAN = /* wgsl */ `
fn follows(row: u32, most: u32) -> bool {
  let position = row_field(row, ${ROW.position}u);
  return position % most != 0u && row_field(row - 1u, ${ROW.position}u) + 1u == position
    && row_field(row - 1u, params.table_word) == row_field(row, params.table_word);
}
/** 0 where the row is in another one's span. */
fn span_of(row: u32, index: u32, most: u32) -> u32 {
  if (index > 0u && follows(row, most)) { return 0u; }
  var rows = 1u;
  while (row + rows < params.end_row && follows(row + rows, most)) { rows++; }
  return rows;
}`;
