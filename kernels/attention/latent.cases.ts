/** Cases of latent attention: tokens stored, queries taken to latents, attention over them, values; each against f64, by rows alone and together. */
import { activation, columns, product, randomMatrix, runSums, scalesTitle, untouched } from "../caseData.ts";
import { scaleTypeCode } from "../formats/group_scales.ts";
import { BLOCK_COLS, BLOCK_ROWS, type LayoutName, paddedRows, paramWords, runCount } from "../formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "../formats/layouts.ts";
import { activationShape } from "../fragments/activation.ts";
import { KEY_SPLIT, latentWidthFor, ROW_WORDS } from "../fragments/batch.ts";
import { dotParams } from "../fragments/matmul.ts";
import { NONE } from "../kernel.ts";
import { PAD_RUNS, padRows } from "../pad_rows.ts";
import { type Case, type Comparison, Random, type Testbed } from "../testbed.ts";
import { queriesFor } from "../xFrom.ts";
import { LIMIT, storedCache } from "./attention.cases.ts";
import { attentionReduce } from "./attention_reduce.ts";
import {
  type AttentionInputs,
  type AttentionShape,
  attentionInputs,
  batchOf,
  type Caches,
  pagesWith,
  stepsOf,
} from "./attentionData.ts";
import { caches, reference, turned } from "./attentionReference.ts";
import { keyWords, pageWords, valueWords } from "./kv_page.ts";
import { cached, PLAIN_KV_TYPES, type PlainKvType } from "./kv_types.ts";
import { LATENT_QUADS, latentAttention } from "./latent_attention.ts";
import { latentKv } from "./latent_kv.ts";
import { LATENT_ROWS, type LatentRows, latentQuery } from "./latent_query.ts";
import { latentValue } from "./latent_value.ts";
import { unitsOf } from "./rope_heads.ts";
import type { QueriesFrom } from "./tile.ts";

/** What varies between the cases. */
export interface LatentShape {
  readonly kvType: PlainKvType;
  readonly layout: LayoutName;
  readonly group: number;
  readonly heads: number;
  readonly latent: number;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly nope: number;
  readonly valueDim: number;
  /** Width of queries' latents; 0: they have none. */
  readonly rank: number;
  readonly past: readonly number[];
  readonly counts: readonly number[];
  readonly split: boolean;
  readonly paddingRows: number;
  /** Whether the columns of keys' weights are stored in another order. */
  readonly sorted: boolean;
  /** Rows at once that are tried; left out: each number. */
  readonly ways?: readonly LatentRows[];
  /** Where queries and exponentials come from; left out, as the model has them on the adapter. */
  readonly queriesFrom?: QueriesFrom;
  readonly seed: number;
}

const SUM_LIMIT = 1e-10;
const EPS = 1e-6;
const at = (list: ArrayLike<number>, index: number) => list[index] ?? Number.NaN;
const bits = (data: Float32Array): Uint32Array => new Uint32Array(data.buffer, data.byteOffset, data.length);

/** The same as attention with one KV head, whose queries and keys are ready. */
const asAttention = (s: LatentShape, rotaryDim = 0): AttentionShape => ({
  ...s,
  kvHeads: 1,
  headDim: s.latent + s.rotaryDim,
  valueDim: s.latent,
  rotaryDim,
  norm: "none",
  sinks: false,
  softcap: 0,
  clip: 0,
  gated: false,
  window: null,
  spread: 1,
});

const rowsTitle = ({ past, counts }: LatentShape) => counts.map((count, i) => `${past[i]}+${count}`).join(",");

/** Every token's value is the beginning of its key. */
const latents = (cache: Caches, latent: number): Caches =>
  cache.map((heads) => heads.map((tokens) => tokens.map(({ k }) => ({ k, v: k.slice(0, latent) }))));

/** Pages that hold keys alone. */
const latentPages = (shape: AttentionShape, from: AttentionInputs, cache: Caches): Uint32Array =>
  pagesWith({ ...shape, valueDim: 0 }, from, latents(cache, 0));

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
  const needed = Math.ceil(Math.max(...from.lengths) / KEY_SPLIT);
  const splits = split || needed > 1 ? needed : 0;
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
  const kernel = latentAttention(kvType, latentWidthFor(latent, rotaryDim), queriesFrom);
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
function sameRowsCase(kvType: PlainKvType, seed: number): Case {
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

/** The numbers of a row's projection: the query's latent, then the token's, then what is turned. */
function projected(s: LatentShape, random: Random, rows: number) {
  const kvAt = paddedRows(s.rank);
  const stride = kvAt + s.latent + s.rotaryDim + 4;
  // Zeros behind the query's latent, as a matrix of padded rows leaves them.
  const x = random.floats(rows * stride, 2).map((v, i) => (i % stride >= s.rank && i % stride < kvAt ? 0 : v));
  return { x, stride, kvAt };
}

function storeCase(s: LatentShape): Case {
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
        {
          name: "padding",
          got: columns(got, z.rows, z.stride, rank, z.stride - rank),
          want: new Float64Array(z.rows * (z.stride - rank)),
          limit: 0,
        },
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

/** A matrix of heads, each from a whole block on: what lies between them is not zero, and must not count. */
function byHead(s: LatentShape, random: Random, rows: number) {
  const matrix = randomMatrix(random, layouts[s.layout], s.heads * paddedRows(rows), s.latent, s.group);
  const table = new Float32Array(matrix.shape.table ?? [0]);
  return { matrix, table, stored: { ...matrix.shape, layout: s.layout, tableAt: 0 } };
}

function uploaded(bed: Testbed, { matrix, table }: ReturnType<typeof byHead>) {
  const words = bed.buffer(matrix.packed.words);
  const scales = matrix.packed.scales.length > 0 ? bed.buffer(matrix.packed.scales) : words;
  return { words, scales, aux: bed.buffer(table) };
}

/** The result of one row a launch, and that those of other numbers are equal. */
async function everyWay(
  { ways = LATENT_ROWS }: LatentShape,
  run: (rows: LatentRows) => Promise<Float32Array>,
): Promise<{ readonly got: Float32Array; readonly same: readonly Comparison[] }> {
  const got = await run(LATENT_ROWS[0]);
  const same: Comparison[] = [];
  for (const rows of ways.filter((way) => way > 1)) {
    same.push({ name: `${rows} rows at once against one`, got: bits(await run(rows)), want: bits(got), limit: 0 });
  }
  return { got, same };
}

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
          for (let k = 0; k < latent; k++)
            for (let n = 0; n < nope; n++) {
              const w = at(keys.matrix.values, (h * paddedRows(nope) + n) * latent + k);
              const to = (row * heads + h) * width + (s.sorted ? at(order, k) : k);
              want[to] = at(want, to) + at(own, n) * w;
            }
          const part = turned(asAttention(s, rotaryDim), from, row, Float64Array.from(own.subarray(nope)));
          want.set(part, (row * heads + h) * width + latent);
        }
      return [{ name: "queries", got, want, limit: SUM_LIMIT }, ...same];
    },
  };
}

/** Values of a step, by each number of rows at once. */
export function latentValueCase(s: LatentShape): Case {
  const { heads, latent, valueDim, layout } = s;
  const rows = s.counts.reduce((a, b) => a + b, 0);
  return {
    kernel: "latent_value",
    title: `latent_value ${scalesTitle({ ...s, scaleType: "f16" })} heads=${heads} ${latent} to ${valueDim} rows=${rows} seed=${s.seed}`,
    async run(bed) {
      const random = new Random(s.seed);
      const values = byHead(s, random, valueDim);
      const x = random.floats(rows * heads * latent);
      const act = activation(rows * heads, latent, x);
      const out = activationShape(rows, heads * valueDim);
      const buffers = { ...uploaded(bed, values), x: bed.buffer(act.data) };
      const head_blocks = paddedRows(valueDim) / BLOCK_ROWS;
      const params = {
        ...dotParams(values.stored, act.shape, true),
        rows,
        heads,
        first_head: 0,
        head_blocks,
        value_dim: valueDim,
        out_stride: out.stride,
      };
      const { got, same } = await everyWay(s, async (m) => {
        const result = bed.output(out.bytes / 4);
        const grid = [heads * head_blocks, Math.ceil(rows / m), 1] as const;
        await bed.submit((recorder) =>
          latentValue(layout, m).launch(recorder, { buffers: { ...buffers, out: result }, params, grid }),
        );
        return bed.f32(result);
      });
      const want = Float64Array.from({ length: rows * heads * valueDim });
      for (let row = 0; row < rows; row++)
        for (let h = 0; h < heads; h++) {
          const begin = h * paddedRows(valueDim) * latent;
          const w = values.matrix.values.subarray(begin, begin + valueDim * latent);
          const own = x.subarray((row * heads + h) * latent, (row * heads + h + 1) * latent);
          want.set(product(w, own, 1, latent, valueDim), (row * heads + h) * valueDim);
        }
      const { stride, cols } = out;
      return [
        { name: "values", got: columns(got, rows, stride, 0, cols), want, limit: SUM_LIMIT },
        {
          name: "padding",
          got: columns(got, rows, stride, cols, stride - cols),
          want: new Float64Array(rows * (stride - cols)),
          limit: 0,
        },
        untouched(got, (i) => i < rows * stride),
        ...same,
      ];
    },
  };
}

function padCase(rows: number, cols: number, seed: number): Case {
  return {
    kernel: "pad_rows",
    title: `pad_rows rows=${rows} cols=${cols} seed=${seed}`,
    async run(bed) {
      const values = new Random(seed).floats(rows * cols);
      const { shape, data } = activation(rows, cols, values);
      const out = bed.output(shape.bytes / 4);
      const { stride, runs, sums } = shape;
      await bed.submit((recorder) =>
        padRows.launch(recorder, {
          buffers: { x: bed.buffer(values), out },
          params: { cols, stride, runs, sums },
          grid: [Math.ceil(runs / PAD_RUNS), rows, 1],
        }),
      );
      const got = await bed.f32(out);
      return [
        { name: "out", got: got.subarray(0, shape.squares), want: data.subarray(0, shape.squares), limit: 0 },
        untouched(got, (i) => i < shape.squares),
      ];
    },
  };
}

/** A small model's. */
export const LATENT: LatentShape = {
  kvType: "f32",
  layout: "f32",
  group: 32,
  heads: 5,
  latent: 64,
  rotaryDim: 16,
  interleaved: true,
  nope: 24,
  valueDim: 40,
  rank: 48,
  past: [0],
  counts: [1],
  split: false,
  paddingRows: 0,
  sorted: false,
  seed: 0,
};

/** Widths, heads and lengths that differ in what they touch. */
const SHAPES: readonly Partial<LatentShape>[] = [
  { past: [41, 300], counts: [1, 1] },
  {
    heads: 3,
    latent: 24,
    nope: 16,
    valueDim: 24,
    rank: 32,
    past: [7, 15],
    counts: [5, 4],
    paddingRows: 1,
    sorted: true,
  },
  { heads: 1, latent: 96, rotaryDim: 32, nope: 6, valueDim: 32, rank: 0, interleaved: false, past: [0], counts: [1] },
  { heads: 9, latent: 34, rotaryDim: 6, nope: 35, valueDim: 66, rank: 1, past: [254], counts: [4], split: true },
];

/** Each kernel with every shape, KV types and layouts by turns. */
export function latentCases(firstSeed: number, names: readonly LayoutName[]): Case[] {
  const shapes = SHAPES.map((shape, i): LatentShape => {
    const layout = names[i % names.length] ?? "f32";
    return { ...LATENT, ...shape, layout, kvType: PLAIN_KV_TYPES[i % 2] ?? "f32", seed: firstSeed + 10 * i };
  });
  return shapes.flatMap((s, i) => [
    latentAttentionCase(s),
    storeCase({ ...s, seed: s.seed + 1 }),
    latentQueryCase({ ...s, seed: s.seed + 2 }),
    latentValueCase({ ...s, seed: s.seed + 3 }),
    ...(i === 0 ? PLAIN_KV_TYPES.map((kvType, k) => sameRowsCase(kvType, s.seed + 4 + k)) : []),
    ...(i === 1 ? [padCase(5, 24, s.seed + 4), padCase(2, 2100, s.seed + 5)] : []),
  ]);
}

/** DeepSeek-V2-Lite's and V3's heads, fewer of them, in every layout and KV type. */
export function realLatentCases(firstSeed: number): Case[] {
  const real = { latent: 512, rotaryDim: 64, nope: 128, valueDim: 128, heads: 6 } as const;
  const steps = [
    { past: [300, 20], counts: [1, 1] },
    { past: [250], counts: [9] },
  ];
  const attended = steps.flatMap((step, i) =>
    PLAIN_KV_TYPES.flatMap((kvType, k) => {
      const s: LatentShape = {
        ...LATENT,
        ...real,
        ...step,
        kvType,
        rank: i === 0 ? 1536 : 0,
        seed: firstSeed + 4 * i + 2 * k,
      };
      return [latentAttentionCase(s), storeCase({ ...s, seed: s.seed + 1 })];
    }),
  );
  const projections = LAYOUT_NAMES.flatMap((layout, i) => {
    const s: LatentShape = {
      ...LATENT,
      ...real,
      heads: 2,
      layout,
      group: 64,
      past: [3],
      counts: [6],
      seed: firstSeed + 100 + 2 * i,
    };
    return [latentQueryCase(s), latentValueCase({ ...s, seed: s.seed + 1 })];
  });
  return [...attended, ...projections];
}
