/** Cases of a token's latent: normed, turned and stored, and what the queries' latent becomes. */
import { columns, padding, runSums } from "../caseData.ts";
import { paddedRows } from "../formats/layout.ts";
import { activationShape } from "../fragments/activation.ts";
import { type Case, Random } from "../testbed.ts";
import { type AttentionInputs, type AttentionShape, attentionInputs, batchOf, pagesWith } from "./attentionData.ts";
import { caches, turned } from "./attentionReference.ts";
import { storedCache } from "./attentionRuns.ts";
import { keyWords, pageWords } from "./kv_page.ts";
import { cached } from "./kv_types.ts";
import { latentKv } from "./latent_kv.ts";
import { asAttention, type LatentShape, latents, rowsTitle, SUM_LIMIT } from "./latentData.ts";

const EPS = 1e-6;
const at = (list: ArrayLike<number>, index: number) => list[index] ?? Number.NaN;

/** The numbers of a row's projection: the query's latent, then the token's, then what is turned. */
function projected(s: LatentShape, random: Random, rows: number) {
  const kvAt = paddedRows(s.rank);
  const stride = kvAt + s.latent + s.rotaryDim + 4;
  // Zeros behind the query's latent, as a matrix of padded rows leaves them.
  const x = random.floats(rows * stride, 2).map((v, i) => (i % stride >= s.rank && i % stride < kvAt ? 0 : v));
  return { x, stride, kvAt };
}

/** Tokens of a step stored. */
export function latentKvCase(s: LatentShape): Case {
  return {
    kernel: "latent_kv",
    title: `latent_kv ${s.kvType} latent=${s.latent}+${s.rotaryDim}${s.interleaved ? " interleaved" : ""} rank=${s.rank} rows=${rowsTitle(s)} padding=${s.paddingRows} seed=${s.seed}`,
    async run(bed) {
      const { kvType, latent, rotaryDim, rank } = s;
      const shape = { ...asAttention(s, rotaryDim), valueDim: 0 };
      const from = attentionInputs(shape);
      const random = new Random(s.seed + 7);
      const { x, stride, kvAt } = projected(s, random, from.outRows);
      const [kvNorm, qNorm] = [random.floats(latent), random.floats(rank)];
      const aux = new Float32Array([...qNorm, ...new Float32Array(kvAt - rank), ...kvNorm]);
      const z = activationShape(from.outRows, Math.max(rank, 1));
      const past = latents(caches(shape, from).past, 0);
      const kv = bed.buffer(pagesWith(shape, from, past));
      const out = bed.output(z.bytes / 4);
      const buffers = {
        x: bed.buffer(x),
        rope: bed.buffer(from.rope),
        aux: bed.buffer(aux),
        batch: bed.buffer(batchOf(from)),
        kv,
        z: out,
      };
      const params = {
        x_stride: stride,
        kv_at: kvAt,
        latent,
        rotary_dim: rotaryDim,
        interleaved: s.interleaved ? 1 : 0,
        kv_norm: kvAt,
        eps: EPS,
        head_words: keyWords(kvType, latent + rotaryDim),
        page_words: pageWords(kvType, 1, latent + rotaryDim, 0),
        q_at: 0,
        q_norm: 0,
        z_stride: z.stride,
        z_runs: z.runs,
        z_sums: z.sums,
        z_squares: z.squares,
        zero: 0,
      };
      const grid = [rank > 0 ? 2 : 1, from.outRows, 1] as const;
      await bed.submit((recorder) => latentKv(kvType).launch(recorder, { buffers, params, grid }));
      const all = past.map((heads) => heads.map((tokens) => [...tokens]));
      from.rows.forEach(({ sequence }, row) => {
        const v = Float64Array.from(x.subarray(row * stride + kvAt, row * stride + kvAt + latent + rotaryDim));
        all[sequence]?.[0]?.push({ k: tokenOf(s, shape, from, row, v, kvNorm), v: new Float64Array(0) });
      });
      const comparisons = storedCache(shape, from, all, await bed.u32(kv));
      if (rank === 0) return comparisons;
      const got = await bed.f32(out);
      const low = columns(x, from.outRows, stride, 0, rank);
      const weighed = Float64Array.from(low, (v, i) => v * at(qNorm, i % rank));
      const limit = SUM_LIMIT;
      return [
        ...comparisons,
        { name: "z", got: columns(got, z.rows, z.stride, 0, rank), want: weighed, limit },
        { name: "sums", got: got.subarray(z.sums, z.squares), want: runSums(weighed, z.rows, rank), limit },
        { name: "squares", got: got.subarray(z.squares), want: runSums(low, z.rows, rank, 2), limit },
        padding(got, z),
      ];
    },
  };
}

/** A token's vector as it is cached. */
function tokenOf(
  s: LatentShape,
  shape: AttentionShape,
  from: AttentionInputs,
  row: number,
  v: Float64Array,
  weights: Float32Array,
): Float64Array {
  const { latent, kvType } = s;
  const square = v.subarray(0, latent).reduce((sum, x) => sum + x * x, 0);
  const factor = 1 / Math.sqrt(square / latent + EPS);
  const c = v.subarray(0, latent).map((x, d) => x * factor * at(weights, d));
  const k = turned(shape, from, row, v.subarray(latent));
  return cached([...c, ...k], kvType);
}
