/** Cases of attention over latents: a step against f64, and its rows one by one with the same bits. */
import { runSums } from "../caseData.ts";
import { BLOCK_COLS } from "../formats/layout.ts";
import { activationShape } from "../fragments/activation.ts";
import { latentWidthFor, splitsOf } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";
import { bits } from "../sameWords.ts";
import type { Case, Comparison, Testbed } from "../testbed.ts";
import { queriesFor } from "../xFrom.ts";
import { attentionReduce } from "./attention_reduce.ts";
import { type AttentionInputs, attentionInputs, batchOf, stepsOf } from "./attentionData.ts";
import { caches, reference } from "./attentionReference.ts";
import { LIMIT } from "./attentionRuns.ts";
import { keyWords, pageWords, valueWords } from "./kv_page.ts";
import type { PlainKvType } from "./kv_types.ts";
import { LATENT_QUADS, LATENT_QUERIES, latentAttention } from "./latent_attention.ts";
import { asAttention, LATENT, type LatentShape, latentPages, latents, rowsTitle } from "./latentData.ts";
import { unitsOf } from "./rope_heads.ts";
import type { QueriesFrom } from "./tile.ts";

/** What attention of one step leaves: f32 (rows, heads · latent), then sums. */
async function runAttention(
  bed: Testbed,
  s: LatentShape,
  from: AttentionInputs,
  pages: Uint32Array,
  { split, queriesFrom = queriesFor(bed.gpu) }: { readonly split: boolean; readonly queriesFrom?: QueriesFrom },
) {
  const { kvType, heads, latent, rotaryDim } = s;
  const width = latent + rotaryDim;
  const out = activationShape(from.outRows * heads, latent);
  const whole = latent % BLOCK_COLS === 0;
  const splits = splitsOf(Math.max(...from.lengths)) || (split ? 1 : 0);
  const units = unitsOf(heads, 1, LATENT_QUADS);
  const result = bed.output(whole ? out.sums + out.rows * out.runs : from.outRows * heads * latent);
  const buffers = {
    qkv: bed.buffer(from.qkv),
    kv: bed.buffer(pages),
    aux: bed.buffer(new Float32Array(4).fill(Number.NaN)),
    batch: bed.buffer(batchOf(from)),
    out: result,
    partials: bed.output(Math.max(from.outRows * heads * splits * (latent + 2), 4)),
  };
  const params = {
    heads,
    kv_heads: 1,
    head_dim: width,
    value_dim: latent,
    head_words: keyWords(kvType, width),
    value_words: valueWords(kvType, latent),
    page_words: pageWords(kvType, 1, width, 0),
    qkv_stride: from.stride,
    q_at: 0,
    q_stride: width,
    table_word: 5,
    zero: 0,
    units,
    splits,
    first_row: 0,
    end_row: from.outRows,
    sinks: NONE,
    out_stride: heads * latent,
    out_runs: heads * out.runs,
    out_sums: whole ? out.sums : NONE,
    gate_at: NONE,
    gate_stride: 0,
    scale: 1 / Math.sqrt(width),
    softcap: 0,
    window: NONE,
  };
  const kernel = latentAttention(kvType, latentWidthFor(latent, rotaryDim), LATENT_QUERIES[queriesFrom]);
  await bed.submit((recorder) => {
    kernel.launch(recorder, { buffers, params, grid: [units, from.outRows, Math.max(splits, 1)] });
    if (splits > 0) attentionReduce.launch(recorder, { buffers, params, grid: [heads, from.outRows, 1] });
  });
  return bed.f32(result);
}

/** Attention of a step. */
export function latentAttentionCase(s: LatentShape): Case {
  return {
    kernel: "latent_attention",
    title: `latent_attention ${s.kvType} heads=${s.heads} latent=${s.latent}+${s.rotaryDim} rows=${rowsTitle(s)}${s.split ? " split" : ""}${s.paddingRows > 0 ? ` padding=${s.paddingRows}` : ""} seed=${s.seed}`,
    async run(bed) {
      const shape = asAttention(s);
      const from = attentionInputs(shape);
      const { all } = caches(shape, from);
      const got = await runAttention(bed, s, from, latentPages(shape, from, all), s);
      const want = reference(shape, from, latents(all, s.latent));
      const rows = from.outRows * s.heads;
      const limit = LIMIT[s.kvType];
      const comparisons: Comparison[] = [{ name: "out", got: got.subarray(0, rows * s.latent), want, limit }];
      if (s.latent % BLOCK_COLS === 0) {
        comparisons.push({
          name: "sums",
          got: got.subarray(rows * s.latent),
          want: runSums(want, rows, s.latent),
          limit,
        });
      }
      return comparisons;
    },
  };
}

/** Rows of a prompt at once, one by one, split or not: the same bits. */
export function sameRowsCase(kvType: PlainKvType, seed: number): Case {
  return {
    kernel: "latent_attention",
    title: `same_bits latent_attention ${kvType} 253+6 at once, split, and one by one seed=${seed}`,
    async run(bed) {
      const s: LatentShape = { ...LATENT, kvType, past: [253], counts: [6], seed };
      const shape = asAttention(s);
      const from = attentionInputs(shape);
      const pages = latentPages(shape, from, caches(shape, from).all);
      const values = from.outRows * s.heads * s.latent;
      const ways = [{ split: true }, { split: true, queriesFrom: "storage" }] as const;
      const whole = await Promise.all(ways.slice(0, 1).map((way) => runAttention(bed, s, from, pages, way)));
      if (queriesFor(bed.gpu) !== "storage") whole.push(await runAttention(bed, s, from, pages, ways[1]));
      const single: number[] = [];
      for (const step of stepsOf(from)) {
        const lengths = [(step.rows[0]?.position ?? Number.NaN) + 1];
        const got = await runAttention(bed, s, { ...step, lengths }, pages, { split: false });
        single.push(...bits(got.subarray(0, s.heads * s.latent)));
      }
      return whole.map((got, i) => ({
        name: `rows at once (${i}) against one by one`,
        got: bits(got.subarray(0, values)),
        want: single,
        limit: 0,
      }));
    },
  };
}
