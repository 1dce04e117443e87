/** Attention's inner part, over queries that are ready: the same for all kernels of it, fused or not. */
import { KEY_BLOCK, KEY_SPLIT, ROW } from "../fragments/batch.ts";
import { FINISH, MASKED, PARTIAL_AT } from "./finish.ts";
import { type Quads, unitFragment } from "./rope_heads.ts";
import { scoresFragment } from "./scores.ts";
import { each, type Tile } from "./tile.ts";
import { valuesFragment } from "./values.ts";

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
  const { quads, subgroups } = tile;
  return /* wgsl */ `${declarations(tile, memory(tile))}
${tile.rows ? SPAN : ""}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32${subgroups > 0 ? ", @builtin(subgroup_invocation_id) sub: u32" : ""}) {
${opening(tile)}${prepare}
${tile.rows ? lengthsOf(quads) : ""}
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
${closing("lane")}
}`;
}

/** Declares which rows, queries and keys a workgroup has, and leaves where it has none. */
export const opening = (tile: Pick<Tile, "rows">): string => /* wgsl */ `  let row = params.first_row + wg.y;
  let unit = unit_of(wg.x);
  let split = split_of(wg.z);
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
  if (params.splits > 0u && (split * SPLIT >= last || (split + 1u) * SPLIT <= low)) { return; }`;

/** What is left to do behind rows with one split: their sums and padding, by lanes called `lane`. */
export const closing = (lane: "lane" | "sub"): string => /* wgsl */ `  if (params.out_sums != NONE) {
    let runs = params.value_dim / 32u;
    for (var i = ${lane}; i < queries * runs; i += WG) {
      let query = i / runs;
      write_sum(row + query / unit.heads, unit.first_head + query % unit.heads, i % runs);
    }
  }
  if (wg.x == params.units - 1u) {
    for (var r = 0u; r < rows; r++) { write_padding(row + r, ${lane}); }
  }`;

/** Rows of one sequence that a workgroup takes together: from a row on whose position is a multiple of `most`. */
export const SPAN = /* wgsl */ `
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

/** What each kernel of a tile declares, with what is its own between constants and functions. */
export function declarations({ kvType, headDim, quads, latent }: Tile, own = ""): string {
  return /* wgsl */ `${unitFragment(kvType, headDim, quads, latent)}${PARTIAL_AT}${FINISH}
const BLOCK = ${KEY_BLOCK}u;
const SPLIT = ${KEY_SPLIT}u;
${own}
fn page_of(row: u32, key: u32) -> u32 { return batch[row_field(row, params.table_word) + key / PAGE]; }
/** What is NaN or infinite, by its bits: drivers make numbers of such a score in max, exp and comparisons. */
fn broken(s: vec4f) -> vec4<bool> { return (bitcast<vec4u>(s) & vec4u(0x7f800000u)) == vec4u(0x7f800000u); }
/**
 * Of a power of two of splits the last may be empty. Neighbours are far from each other, so that a driver that gives each core a stretch of the
 * workgroups gives each some that are not.
 */
fn split_of(z: u32) -> u32 {
  if (params.splits < 2u) { return z; }
  return reverseBits(z) >> (32u - firstTrailingBit(params.splits));
}
fn low_of(length: u32) -> u32 { return select(0u, length - params.window, params.window < length); }`;
}

/** What `attentionCode` keeps in workgroup memory: of a chunk, and of the split. */
const memory = ({ quads }: Tile): string => /* wgsl */ `/** Keys that are scored at once, and blocks of them. */
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
`;

/** Declares of each query how many keys it sees, 0 where there is none, and the first of them. */
export const lengthsOf = (quads: Quads): string =>
  each(quads, (q) => {
    const queries = `vec4u(${4 * q}, ${4 * q + 1}, ${4 * q + 2}, ${4 * q + 3})`;
    return /* wgsl */ `
  let lengths${q} = select(vec4u(), vec4u(length) + (${queries} / unit.heads), ${queries} < vec4u(queries));
  let lows${q} = select(vec4u(), lengths${q} - vec4u(params.window), vec4u(params.window) < lengths${q});`;
  });
