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
 * the scores (scores.ts), then whole dimensions for p · V in key order (values.ts); blocks of 32 keys are folded left to right; on software
 * drivers by attentionSubgroup.ts, with the same sums.
 * A row with one split is finished here, one with several by `attention_reduce`.
 * `attentionFused` does qk-norm, rope and the KV write of its row first: right where a sequence has one row in the step;
 * `attentionPaged` finds them done by `rope_kv`, and so does `attentionRow`, its sibling of one row for software drivers: what only reads
 * keys can read them by 128 bits, and there a dispatch more costs less than the same rope in each split.
 * Limits: head_dim and value_dim even and ≤ 256. Grid: (units, rows of the launch, max(splits, 1)).
 */
import type { HeadDim } from "../fragments/batch.ts";
import { xSuffix } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { attentionCode, LOAD_QUERIES } from "./attentionCode.ts";
import { attentionSubgroup } from "./attentionSubgroup.ts";
import { FINISH_PARAMS } from "./finish.ts";
import type { KvType } from "./kv_types.ts";
import { HEAD_PARAMS, headsFragment, type Quads } from "./rope_heads.ts";
import { type BroadcastQueries, isOneSubgroup, lanesOf, type QueriesFrom, subgroupsOf, type Tile } from "./tile.ts";

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
/** Where it has several rows. More do not fit workgroup memory, and where a workgroup is a subgroup a lane has sums enough of one quad of long heads. */
export const pagedQuads = (from: QueriesFrom, headDim: HeadDim): Quads => (from !== "storage" && headDim > 128 ? 1 : 2);

/** For steps in which every sequence has one row: ropes and stores its own key first. */
const attentionFused = variants((kvType: KvType, headDim: HeadDim, quads: Quads) =>
  kernel({
    name: `attention_fused ${kvType} head_dim<=${headDim}${quads > 1 ? " wide" : ""}`,
    reads: { qkv: "f32", rope: "f32", aux: "f32", batch: "u32" },
    writes: { kv: "u32", out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: 64,
    code:
      headsFragment(kvType, headDim, quads) +
      attentionCode(
        { kvType, headDim, quads, subgroups: 0, rows: false },
        /* wgsl */ `
  load_heads(row, unit, lane);
  if (split == (length - 1u) / SPLIT) { store_kv(row, unit, lane); }
  storageBarrier();`,
      ),
  }),
);

/** The same behind `rope_kv`, by broadcasts. */
const attentionRow = variants((kvType: KvType, headDim: HeadDim, quads: Quads, from: BroadcastQueries) => {
  const tile = { kvType, headDim, quads, subgroups: subgroupsOf(from), rows: false };
  return kernel({
    name: `attention_row ${kvType} head_dim<=${headDim}${quads > 1 ? " wide" : ""}${xSuffix(from)}`,
    reads: { qkv: "f32", kv: "vec4u", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: lanesOf(tile),
    subgroups: true,
    code: codeOf(tile),
  });
});

/** That of a way for steps in which every sequence has one row: it stands alone where queries come from storage, else behind `rope_kv`. */
export const oneRowAttention = (kvType: KvType, headDim: HeadDim, quads: Quads, from: QueriesFrom) =>
  from === "storage" ? attentionFused(kvType, headDim, quads) : attentionRow(kvType, headDim, quads, from);

/** For steps with several rows a sequence, after `rope_kv`. */
export const attentionPaged = variants((kvType: KvType, headDim: HeadDim, from: QueriesFrom) => {
  const tile = { kvType, headDim, quads: pagedQuads(from, headDim), subgroups: subgroupsOf(from), rows: true };
  return kernel({
    name: `attention_paged ${kvType} head_dim<=${headDim}${xSuffix(from)}`,
    reads: { qkv: "f32", kv: tile.subgroups > 0 ? "vec4u" : "u32", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "f32" },
    params: PARAMS,
    workgroup: lanesOf(tile),
    subgroups: tile.subgroups > 0,
    code: codeOf(tile),
  });
});

/** The code over queries that are ready in qkv. */
export const codeOf = (tile: Tile): string =>
  isOneSubgroup(tile) ? attentionSubgroup(tile) : attentionCode(tile, LOAD_QUERIES);
