/**
 * Attention of new rows over a paged cache.
 *
 *   out[t, h] = Σ_j softmax_j(cap(scale · q[t, h] · k[j])) · v[j],   max(0, length − window) ≤ j < length
 *
 * Shapes: qkv (rows, qkv_stride) f32 · kv pages (kv_page.ts) · aux holds sinks (heads) f32 · batch u32 (batch.ts) ·
 * out activation (rows, heads · value_dim), times sigmoid(gate) where there is one · partials (rows, units, splits,
 * value_dim + 2) vec4f.
 * Sources: Dao et al. 2022, "FlashAttention", alg. 1; Kwon et al. 2023, "PagedAttention", §4.1.
 *
 * How: one workgroup a row and unit (four query heads of a KV head). Keys go in blocks of 32 at absolute positions: a
 * lane a key for the scores, block maximum, exponentials, then a lane a dimension for p·V in key order. Blocks fold left
 * to right into a split of 256 keys, splits left to right into the result, so that one workgroup a split (`splits` > 0,
 * then `attention_reduce`) and one for all give the same bits.
 * `attentionFused` does qk-norm, rope and the KV write of its row first: right where a sequence has one row in the step;
 * `attentionPaged` finds them done by `rope_kv`.
 * Limits: head_dim and value_dim even and ≤ 256. Grid: (units, rows, max(splits, 1)).
 */
import { type HeadDim, KEY_BLOCK, KEY_SPLIT, ROW } from "../fragments/batch.ts";
import { kernel, variants } from "../kernel.ts";
import { FINISH_PARAMS, finishFragment, MASKED } from "./finish.ts";
import { type KvType, kvDims } from "./kv_page.ts";
import { HEAD_PARAMS, headsFragment, unitFragment } from "./rope_heads.ts";

const PARAMS = {
  ...HEAD_PARAMS,
  ...FINISH_PARAMS,
  scale: "f32",
  /** 0 for none. */
  softcap: "f32",
  /** Keys that a row sees, its own included; NONE for all. */
  window: "u32",
} as const;

/** For steps in which every sequence has one row: ropes and stores its own key first. */
export const attentionFused = variants((kvType: KvType, headDim: HeadDim) =>
  kernel({
    name: `attention_fused ${kvType} head_dim<=${headDim}`,
    reads: { qkv: "f32", rope: "f32", aux: "f32", batch: "u32" },
    writes: { kv: "u32", out: "f32", partials: "vec4f" },
    params: PARAMS,
    workgroup: 64,
    code:
      headsFragment(kvType, headDim) +
      code(
        kvType,
        headDim,
        /* wgsl */ `
  load_heads(row, unit, lane);
  if (length > first_split * SPLIT && length <= last_split * SPLIT) { store_kv(row, unit, lane); }
  storageBarrier();`,
      ),
  }),
);

/** For steps with several rows a sequence, after `rope_kv`. */
export const attentionPaged = variants((kvType: KvType, headDim: HeadDim) =>
  kernel({
    name: `attention_paged ${kvType} head_dim<=${headDim}`,
    reads: { qkv: "f32", kv: "u32", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "vec4f" },
    params: PARAMS,
    workgroup: 64,
    code: code(
      kvType,
      headDim,
      /* wgsl */ `
  for (var d = lane; d < params.head_dim; d += WG) {
    var q = vec4f();
    for (var h = 0u; h < unit.heads; h++) {
      q[h] = qkv[row * params.qkv_stride + params.q_at + (unit.first_head + h) * params.q_stride + d];
    }
    q4[d] = q;
  }`,
    ),
  }),
);

/** The whole kernel; `prepare` fills `q4`. */
function code(kvType: KvType, headDim: HeadDim, prepare: string): string {
  const two = kvDims(kvType) === 2;
  return /* wgsl */ `${unitFragment(kvType, headDim)}${finishFragment(headDim)}
const BLOCK = ${KEY_BLOCK}u;
const SPLIT = ${KEY_SPLIT}u;
var<workgroup> scores: array<vec4f, ${KEY_BLOCK}>;
var<workgroup> maxima: array<vec4f, 4>;

fn page_of(row: u32, key: u32) -> u32 { return batch[row_field(row, params.table_word) + key / PAGE]; }

fn score(row: u32, unit: Unit, key: u32) -> vec4f {
  let at = k_at(page_of(row, key), unit.kv_head, 0u, key % PAGE);
  var s = vec4f();
  for (var w = 0u; w < params.head_words; w++) {
${
  two
    ? `    let k = unpack2x16float(kv[at + w * PAGE]);
    s = fma(q4[2u * w], vec4f(k.x), s);
    s = fma(q4[2u * w + 1u], vec4f(k.y), s);`
    : `    s = fma(q4[w], vec4f(bitcast<f32>(kv[at + w * PAGE])), s);`
}
  }
  s *= params.scale;
  if (any(broken(s))) { return s; } // before a clamp makes a number of it
  if (params.softcap > 0.0) { s = params.softcap * tanh(clamp(s / params.softcap, vec4f(-15.0), vec4f(15.0))); }
  return s;
}
fn fold_block(i: u32, keep: vec4f, add: vec4f, take: vec4f) { part[i] = fma(part[i], keep, add * take); }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.y;
  let unit = unit_of(wg.x);
  let length = row_field(row, ${ROW.length}u);
  var low = 0u;
  if (params.window < length) { low = length - params.window; }
  var first_split = low / SPLIT;
  var last_split = (length + SPLIT - 1u) / SPLIT;
  if (params.splits > 0u) {
    if (wg.z >= last_split) { return; }
    first_split = wg.z;
    last_split = wg.z + 1u;
  }${prepare}
  for (var i = lane; i <= params.value_dim; i += WG) { total[i] = vec4f(); }
  var total_max = vec4f(${MASKED});
  for (var split = first_split; split < last_split; split++) {
    for (var i = lane; i <= params.value_dim; i += WG) { part[i] = vec4f(); }
    workgroupBarrier();
    var part_max = vec4f(${MASKED});
    let begin = max(low, split * SPLIT);
    let end = min(length, (split + 1u) * SPLIT);
    for (var block = begin / BLOCK * BLOCK; block < end; block += BLOCK) {
      let j = block + lane;
      let live = lane < BLOCK && j >= begin && j < end;
      var s = vec4f(${MASKED});
      if (live) { s = score(row, unit, j); }
      if (lane < BLOCK) { scores[lane] = s; }
      workgroupBarrier();
      if (lane < 4u) {
        var m = scores[lane * 8u];
        for (var i = 1u; i < 8u; i++) { m = max(m, scores[lane * 8u + i]); }
        maxima[lane] = m;
      }
      workgroupBarrier();
      let block_max = max(max(maxima[0], maxima[1]), max(maxima[2], maxima[3]));
      if (live) { scores[lane] = select(exp(s - block_max), s, broken(s)); }
      workgroupBarrier();
      let new_max = max(part_max, block_max);
      let keep = exp(part_max - new_max);
      let take = exp(block_max - new_max);
      let from_key = max(block, begin);
      let to_key = min(block + BLOCK, end);
      for (var w = lane; w <= params.value_words; w += WG) {
        var a = vec4f();
        var b = vec4f();
        if (w == params.value_words) {
          for (var j = from_key; j < to_key; j++) { a += scores[j - block]; }
          fold_block(params.value_dim, keep, a, take);
        } else {
          for (var j = from_key; j < to_key; j++) {
            let word = kv[v_at(page_of(row, j), unit.kv_head, w, j % PAGE)];
${
  two
    ? `            let v = unpack2x16float(word);
            a = fma(scores[j - block], vec4f(v.x), a);
            b = fma(scores[j - block], vec4f(v.y), b);
          }
          fold_block(2u * w, keep, a, take);
          fold_block(2u * w + 1u, keep, b, take);`
    : `            a = fma(scores[j - block], vec4f(bitcast<f32>(word)), a);
          }
          fold_block(w, keep, a, take);`
}
        }
      }
      part_max = new_max;
      workgroupBarrier();
    }
    if (params.splits > 0u) {
      let at = ((row * params.units + wg.x) * params.splits + split) * (params.value_dim + 2u);
      for (var i = lane; i <= params.value_dim; i += WG) { partials[at + i] = part[i]; }
      if (lane == 0u) { partials[at + params.value_dim + 1u] = part_max; }
    } else {
      total_max = fold_split(total_max, part_max, lane);
    }
    workgroupBarrier();
  }
  if (params.splits == 0u) { finish(row, unit, wg.x, total_max, lane); }
}`;
}
