/**
 * Attention of new rows over a paged cache of latents: all query heads share one vector a token, whose beginning is also its value.
 *
 *   out[t, h] = Σ_j softmax_j(scale · q[t, h] · [c_j, k_j]) · c_j,   j < length
 *
 * Shapes: qkv (rows, qkv_stride) f32, of each head what latent_query leaves (latent + turned) · kv pages of [c, k] (kv_page.ts) ·
 * batch u32 (batch.ts) · out f32 (rows, heads · latent), sums of runs of 32 where the latent is whole runs · partials as attention.ts.
 * Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.
 *
 * How: attention.ts for one row and four heads a workgroup, with values read where keys lie. A page is written before (latent_kv), so one
 * kernel serves decoding and prompts, and a row has the same bits in both. Lanes that own neighbouring dimensions of a value read words
 * a page apart, each of them eight tokens in a row, which is a whole sector of memory.
 * Limits: latent even and ≤ 512, with what is turned ≤ 576. Grid: (heads / 4, rows of the launch, max(splits, 1)).
 */
import type { LatentWidth } from "../fragments/batch.ts";
import { xSuffix } from "../fragments/matmul.ts";
import { kernel, variants } from "../kernel.ts";
import { codeOf } from "./attention.ts";
import { FINISH_PARAMS } from "./finish.ts";
import type { PlainKvType } from "./kv_types.ts";
import type { Quads } from "./rope_heads.ts";
import { lanesOf, QUERIES_FROM, type QueriesFrom, subgroupsOf } from "./tile.ts";

/** Heads of a workgroup in fours: of keys this long, more queries do not fit its memory. */
export const LATENT_QUADS: Quads = 1;

/**
 * How queries reach it, by how they reach attention. A lane of one subgroup would have too many dimensions, so it is attentionCode.ts throughout,
 * which broadcasts in subgroups of eight alone.
 */
export const LATENT_QUERIES = {
  storage: "storage",
  broadcast: "broadcast",
  broadcast4: "storage",
} as const satisfies Readonly<Record<QueriesFrom, QueriesFrom>>;
export type LatentQueries = (typeof LATENT_QUERIES)[QueriesFrom];
/** What it is compiled for, each with the ways of attention's queries that it stands for. */
export const LATENT_VARIANTS = (["storage", "broadcast"] as const).map((from) => ({
  from,
  queriesFrom: QUERIES_FROM.filter((way) => LATENT_QUERIES[way] === from),
}));

/** The kernel, for steps behind `latent_kv`. */
export const latentAttention = variants((kvType: PlainKvType, width: LatentWidth, from: LatentQueries) => {
  const tile = {
    kvType,
    headDim: width,
    quads: LATENT_QUADS,
    subgroups: subgroupsOf(from),
    rows: false,
    latent: true,
  };
  return kernel({
    name: `latent_attention ${kvType} width<=${width}${xSuffix(from)}`,
    reads: { qkv: "f32", kv: tile.subgroups > 0 ? "vec4u" : "u32", aux: "f32", batch: "u32" },
    writes: { out: "f32", partials: "f32" },
    params: {
      heads: "u32",
      /** 1. */
      kv_heads: "u32",
      /** Of queries and keys; of values. */
      head_dim: "u32",
      value_dim: "u32",
      /** u32 words of a key and of a value; of a page. */
      head_words: "u32",
      value_words: "u32",
      page_words: "u32",
      /** Of qkv, in f32s: a row; where queries begin in it, and from one head's to the next. */
      qkv_stride: "u32",
      q_at: "u32",
      q_stride: "u32",
      table_word: "u32",
      zero: "u32",
      ...FINISH_PARAMS,
      scale: "f32",
      /** 0 for none. */
      softcap: "f32",
      /** Keys that a row sees, its own included; NONE for all. */
      window: "u32",
    },
    workgroup: lanesOf(tile),
    subgroups: tile.subgroups > 0,
    code: codeOf(tile),
  });
});
