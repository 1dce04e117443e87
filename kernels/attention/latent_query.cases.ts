/** Cases of queries taken to latents: against f64, several rows at once with the bits of one. */
import { scalesTitle } from "../caseData.ts";
import { scaleTypeCode } from "../formats/group_scales.ts";
import { BLOCK_COLS, BLOCK_ROWS, paddedRows, paramWords, runCount } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { ROW_WORDS } from "../fragments/batch.ts";
import { type Case, Random } from "../testbed.ts";
import { attentionInputs, batchOf } from "./attentionData.ts";
import { turned } from "./attentionReference.ts";
import { latentQuery } from "./latent_query.ts";
import { asAttention, byHead, everyWay, type LatentShape, SUM_LIMIT, uploaded } from "./latentData.ts";

const at = (list: ArrayLike<number>, index: number) => list[index] ?? Number.NaN;

/** Queries of a step, by each number of rows at once. */
export function latentQueryCase(s: LatentShape): Case {
  const { heads, latent, nope, rotaryDim, layout } = s;
  const rows = s.counts.reduce((a, b) => a + b, 0);
  const scaled = layouts[layout].scaling !== "none";
  return {
    kernel: "latent_query",
    title: `latent_query ${scalesTitle({ ...s, scaleType: "f16" })} heads=${heads} ${nope}+${rotaryDim} to ${latent}${s.interleaved ? " interleaved" : ""}${s.sorted ? " sorted" : ""} rows=${rows} seed=${s.seed}`,
    async run(bed) {
      const random = new Random(s.seed);
      const keys = byHead(s, random, nope);
      const order = Uint32Array.from({ length: latent }, (_, k) => (s.sorted ? (5 * k + 3) % latent : Number.NaN));
      const from = attentionInputs({ ...asAttention(s, rotaryDim), paddingRows: 0 });
      const each = nope + rotaryDim;
      const stride = heads * each + 3;
      const q = random.floats(rows * stride);
      const width = latent + rotaryDim;
      const buffers = {
        ...uploaded(bed, keys),
        order: bed.buffer(order),
        q: bed.buffer(q),
        rope: bed.buffer(from.rope),
      };
      const batch = bed.buffer(batchOf(from).subarray(0, rows * ROW_WORDS));
      const group_cols = scaled ? s.group : BLOCK_COLS;
      const params = {
        rows,
        row_runs: runCount(latent),
        groups: Math.ceil(latent / group_cols),
        group_cols,
        scale_type: scaleTypeCode(layouts[layout], keys.stored),
        param_words: paramWords(layouts[layout], keys.stored),
        table: 0,
        head_blocks: paddedRows(nope) / BLOCK_ROWS,
        nope,
        latent,
        rotary_dim: rotaryDim,
        interleaved: s.interleaved ? 1 : 0,
        q_stride: stride,
        q_at: 0,
        out_stride: heads * width,
        sorted: s.sorted ? 1 : 0,
      };
      const { got, same } = await everyWay(s, async (m) => {
        const out = bed.output(rows * heads * width);
        const grid = [heads, Math.ceil(rows / m), 1] as const;
        await bed.submit((recorder) =>
          latentQuery(layout, m).launch(recorder, {
            buffers: { ...buffers, batch, out },
            params: { ...params, first_head: 0 },
            grid,
          }),
        );
        return bed.f32(out);
      });
      const want = new Float64Array(got.length);
      for (let row = 0; row < rows; row++)
        for (let h = 0; h < heads; h++) {
          const own = q.subarray(row * stride + h * each, row * stride + (h + 1) * each);
          const taken = takenTo(s, own, keys.matrix.values, h);
          const part = turned(asAttention(s, rotaryDim), from, row, Float64Array.from(own.subarray(nope)));
          const begin = (row * heads + h) * width;
          taken.forEach((v, k) => {
            want[begin + (s.sorted ? at(order, k) : k)] = v;
          });
          want.set(part, begin + latent);
        }
      return [{ name: "queries", got, want, limit: SUM_LIMIT }, ...same];
    },
  };
}

/** A head's query over latents, in the columns' own order. */
function takenTo({ latent, nope }: LatentShape, query: Float32Array, keys: Float64Array, head: number): Float64Array {
  const sums = new Float64Array(latent);
  for (let n = 0; n < nope; n++) {
    const first = (head * paddedRows(nope) + n) * latent;
    sums.forEach((sum, k) => {
      sums[k] = sum + at(query, n) * at(keys, first + k);
    });
  }
  return sums;
}
