/** Cases of rope, KV write and paged attention: fused for one row a sequence, in two dispatches for several, split or not. */

import { columns, runSums, untouched } from "../caseData.ts";
import { activationShape } from "../fragments/activation.ts";
import { headDimFor, KEY_SPLIT, ROW } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";
import { type Case, type Comparison, Random, type Testbed } from "../testbed.ts";
import { queriesFor } from "../xFrom.ts";
import { attentionPaged, fusedQuads, oneRowAttention, pagedQuads } from "./attention.ts";
import { attentionReduce } from "./attention_reduce.ts";
import {
  type AttentionInputs,
  type AttentionShape,
  attentionInputs,
  batchOf,
  type Caches,
  emptyWord,
  PLAIN_ATTENTION,
  pagesWith,
  vectors,
} from "./attentionData.ts";
import { caches, EPS, reference } from "./attentionReference.ts";
import { keyWords, pageWords, valueWords } from "./kv_page.ts";
import { type KvType, kvNumbers, PLAIN_KV_TYPES } from "./kv_types.ts";
import { qkNorm } from "./qk_norm.ts";
import { NORM, unitsOf } from "./rope_heads.ts";
import { ropeKv } from "./rope_kv.ts";
import type { QueriesFrom } from "./tile.ts";

/** exp of drivers is good to about 1e-6; a key that rounds to the other half or byte, where its f32 differs in the last bit, costs more. */
export const LIMIT = { f16: 1e-7, f32: 1e-9, int8: 1e-6 } as const satisfies Record<KvType, number>;
/** What is stored may round the other way where the f32 before it differs in its last bit. */
const STORED_LIMIT = { f16: 1e-6, f32: 1e-6, int8: 1e-5 } as const satisfies Record<KvType, number>;

/** Norms that the kernels of attention do themselves. */
const HEAD_NORMS = {
  none: NORM.none,
  projection: NORM.none,
  rms: NORM.rms,
  "rms after rope": NORM.rms,
  "rms after rope without weights": NORM.rms,
  "layer each head": NORM.layer,
  "layer with biases": NORM.layer,
} as const;

/** How a step of attention is launched. */
export interface AttentionPath {
  /** One dispatch for qk-norm, rope, KV write and attention, or with broadcasts rope_kv and attention_row; or rope_kv and attention_paged. */
  readonly fused: boolean;
  readonly split: boolean;
  /** Where queries and exponentials come from; left out, as the model has them on the adapter. */
  readonly queriesFrom?: QueriesFrom;
}

/** Runs one step over pages that hold what came before: the activation out, and the pages after it. */
export async function runAttention(
  bed: Testbed,
  shape: AttentionShape,
  from: AttentionInputs,
  pages: Uint32Array,
  { fused, split, queriesFrom = queriesFor(bed.gpu) }: AttentionPath,
) {
  const { heads, kvHeads, headDim, valueDim, kvType, norm } = shape;
  const out = activationShape(from.outRows, heads * valueDim);
  const needed = Math.ceil(Math.max(...from.lengths) / KEY_SPLIT);
  const splits = split || needed > 1 ? needed : 0;
  const room = headDimFor(Math.max(headDim, valueDim));
  const quads = fused ? fusedQuads(heads, kvHeads) : pagedQuads(queriesFrom, room);
  const units = unitsOf(heads, kvHeads, quads);
  const group = shape.seed % 2; // of two, by turns
  const [kv, result, qkv] = [bed.buffer(pages), bed.output(out.bytes / 4), bed.buffer(from.qkv)];
  const partials = bed.output(Math.max(from.outRows * heads * splits * (valueDim + 2), 4));
  const common = { rope: bed.buffer(from.rope), aux: bed.buffer(from.aux), batch: bed.buffer(batchOf(from, group)) };
  const weights = { q_norm: 0, k_norm: from.qNorm.length };
  const biasAt = from.qNorm.length + from.kNorm.length + from.sinks.length;
  const biases = { q_bias: biasAt, k_bias: biasAt + headDim };
  const columns = { qkv_stride: from.stride, q_at: 0, q_stride: from.qStride, k_at: from.kAt, k_stride: headDim };
  const sizes = { heads, kv_heads: kvHeads, head_dim: headDim };
  const unweighted = norm === "projection" || norm === "rms after rope without weights";
  const headParams = {
    ...sizes,
    value_dim: valueDim,
    head_words: keyWords(kvType, headDim),
    value_words: valueWords(kvType, valueDim),
    page_words: pageWords(kvType, kvHeads, headDim, valueDim),
    value_base: pageWords(kvType, kvHeads, headDim, 0),
    ...columns,
    v_at: from.vAt,
    v_stride: valueDim,
    rotary_dim: shape.rotaryDim,
    interleaved: shape.interleaved ? 1 : 0,
    norm: HEAD_NORMS[norm],
    norm_after: norm.startsWith("rms after rope") ? 1 : 0,
    ...(unweighted ? { q_norm: NONE, k_norm: NONE } : weights),
    norm_stride: norm === "layer each head" ? headDim : 0,
    ...(norm === "layer with biases" ? biases : { q_bias: NONE, k_bias: NONE }),
    eps: EPS,
    clip: shape.clip,
    table_word: ROW.table + group,
    zero: 0,
  };
  const finish = {
    units,
    splits,
    first_row: 0,
    end_row: from.outRows,
    sinks: shape.sinks ? from.qNorm.length + from.kNorm.length : NONE,
    out_stride: out.stride,
    out_runs: out.runs,
    out_sums: valueDim % 32 === 0 ? out.sums : NONE,
    gate_at: shape.gated ? headDim : NONE,
    gate_stride: from.qStride,
  };
  const scores = { scale: 1 / Math.sqrt(headDim), softcap: shape.softcap, window: shape.window ?? NONE };
  const params = { ...headParams, ...finish, ...scores };
  const grid = [units, from.outRows, Math.max(splits, 1)] as const;
  await bed.submit((recorder) => {
    const buffers = { qkv, kv, partials, out: result, ...common };
    if (norm === "projection") {
      const params = { ...sizes, ...columns, ...weights, eps: EPS };
      qkNorm.launch(recorder, { buffers, params, grid: [2, from.outRows, 1] });
    }
    if (!fused || queriesFrom !== "storage") {
      const heading = [unitsOf(heads, kvHeads, 1), from.outRows, 1] as const;
      ropeKv(kvType, room).launch(recorder, { buffers, params: headParams, grid: heading });
    }
    const kernel = fused
      ? oneRowAttention(kvType, room, quads, queriesFrom)
      : attentionPaged(kvType, room, queriesFrom);
    kernel.launch(recorder, { buffers, params, grid });
    if (splits > 0) attentionReduce.launch(recorder, { buffers, params, grid: [heads, from.outRows, 1] });
  });
  return { shape: out, out: await bed.f32(result), pages: await bed.u32(kv) };
}

/** The case of a shape; its title names all of it. */
export function attentionCase(shape: AttentionShape): Case {
  const fused = shape.counts.every((count) => count === 1);
  return {
    kernel: fused ? "attention_fused" : "attention_paged",
    title: title(shape, fused),
    async run(bed) {
      const from = attentionInputs(shape);
      const cache = caches(shape, from);
      const path = { fused, split: shape.split };
      const got = await runAttention(bed, shape, from, pagesWith(shape, from, cache.past), path);
      const want = reference(shape, from, cache.all);
      const { rows, stride, cols, sums, squares, runs } = got.shape;
      const comparisons: Comparison[] = [
        { name: "out", got: columns(got.out, rows, stride, 0, cols), want, limit: LIMIT[shape.kvType] },
        // Zeros behind the last head, or NaN would meet a zero weight in the next matmul.
        {
          name: "padding",
          got: columns(got.out, rows, stride, cols, stride - cols),
          want: new Float64Array(rows * (stride - cols)),
          limit: 0,
        },
      ];
      if (shape.valueDim % 32 === 0) {
        comparisons.push({
          name: "sums",
          got: got.out.subarray(sums, squares),
          want: runSums(want, rows, cols),
          limit: LIMIT[shape.kvType],
        });
      }
      comparisons.push(untouched(got.out, (i) => i < sums || (shape.valueDim % 32 === 0 && i < sums + rows * runs)));
      return [...comparisons, ...storedCache(shape, from, cache.all, got.pages)];
    },
  };
}

/** The pages after the step: what is cached as the reference has it, every other word as it was. */
export function storedCache(
  shape: AttentionShape,
  from: AttentionInputs,
  cache: Caches,
  after: Uint32Array,
): Comparison[] {
  const [want, got]: [number[], number[]] = [[], []];
  const cachedWords = new Set<number>();
  const empty = emptyWord(shape.kvType);
  vectors(shape, from.tables, cache, (at, vector) => {
    for (const word of at) cachedWords.add(word);
    want.push(...vector);
    got.push(...kvNumbers[shape.kvType].decode(at.map((word) => after[word] ?? empty)));
  });
  const strays = after.filter((word, i) => word !== empty && !cachedWords.has(i)).length;
  return [
    { name: "pages", got, want, limit: STORED_LIMIT[shape.kvType] },
    { name: "words of free slots that were written", got: [strays], want: [0], limit: 0 },
  ];
}

function title(s: AttentionShape, fused: boolean): string {
  const flags = [
    s.norm === "rms" && "qk-norm",
    s.norm !== "rms" && s.norm !== "none" && `norm=${s.norm.replaceAll(" ", "-")}`,
    s.valueDim !== s.headDim && `value_dim=${s.valueDim}`,
    s.clip > 0 && `clip=${s.clip}`,
    s.gated && "gated",
    s.sinks && "sinks",
    s.softcap > 0 && "softcap",
    s.interleaved && "interleaved",
    s.split && "split",
    s.paddingRows > 0 && `padding=${s.paddingRows}`,
    s.spread !== 1 && `spread=${s.spread}`,
  ].filter(Boolean);
  const rows = s.counts.map((count, i) => `${s.past[i]}+${count}`).join(",");
  return `${fused ? "attention_fused" : "attention_paged"} ${s.kvType} heads=${s.heads}/${s.kvHeads} head_dim=${s.headDim} rotary=${s.rotaryDim} window=${s.window ?? "none"} rows=${rows} ${flags.join(",")} seed=${s.seed}`;
}

/** `count` random shapes: fused and paged, KV types by turns, one to three sequences. */
export function attentionCases(count: number, firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const kvType = kvTypes[Math.floor(i / 2) % kvTypes.length] ?? "f16";
    return attentionCase(randomShape(i, kvType, firstSeed + i));
  });
}

function randomShape(index: number, kvType: KvType, seed: number): AttentionShape {
  const random = new Random(seed * 104729);
  const kvHeads = random.pick([1, 2, 3]);
  const headDim = random.pick([8, 16, 24, 32, 48, 64, 80, 128]);
  const long = random.next() < 0.15;
  const sequences = long ? 1 : 1 + random.below(3);
  const fused = index % 2 === 0;
  const past = Array.from({ length: sequences }, () =>
    random.pick(long ? [255, 256, 300, 520] : [0, 1, 15, 16, 31, 33, 63, 70]),
  );
  return {
    kvType,
    heads: kvHeads * random.pick([1, 2, 3, 4, 5, 8]),
    kvHeads,
    headDim,
    valueDim: headDim,
    rotaryDim: random.next() < 0.7 ? headDim : Math.max(2, 2 * Math.floor(headDim / 8)),
    interleaved: random.next() < 0.2,
    norm: random.next() < 0.3 ? "rms" : "none",
    sinks: random.next() < 0.25,
    softcap: random.next() < 0.2 ? 10 : 0,
    clip: 0,
    gated: false,
    window: random.next() < 0.3 ? random.pick([1, 8, 16, 17, 40]) : null,
    past,
    counts: past
      .map(() => (fused ? 1 : 1 + random.below(5)))
      .map((count, i) => (!fused && i === 0 ? count + 1 : count)),
    split: random.next() < 0.5,
    paddingRows: random.next() < 0.2 ? 1 + random.below(2) : 0,
    spread: random.next() < 0.1 ? 1e5 : 1,
    seed,
  };
}

/** What families ask for besides: each option fused and paged, KV types by turns. */
const OPTIONS: readonly Partial<AttentionShape>[] = [
  { rotaryDim: 0 },
  { rotaryDim: 0, norm: "layer each head", headDim: 24, valueDim: 24 },
  { norm: "layer each head" },
  { norm: "layer each head", interleaved: true, heads: 10 },
  { norm: "rms after rope" },
  { norm: "rms after rope", rotaryDim: 16, headDim: 40, valueDim: 40 },
  { norm: "rms after rope without weights", heads: 8, kvHeads: 1 },
  { norm: "projection" },
  { norm: "projection", clip: 0.5, kvHeads: 6, gated: true },
  { clip: 0.75 },
  { gated: true },
  { gated: true, headDim: 128, valueDim: 128, rotaryDim: 32, norm: "rms", heads: 4, split: true },
  { valueDim: 32, sinks: true },
  { valueDim: 40, headDim: 56, rotaryDim: 24, softcap: 5, gated: true },
  { valueDim: 128, headDim: 96, rotaryDim: 96, window: 20, kvHeads: 3 },
  { norm: "layer with biases", rotaryDim: 16, headDim: 40, valueDim: 40 },
];

/** Every option that a family may ask for and the random shapes do not have. */
export function attentionOptionCases(firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  return OPTIONS.map((options, i) => {
    const rows = i % 2 === 0 ? { past: [41, 300], counts: [1, 1] } : { past: [7, 254], counts: [5, 4] };
    const kvType = kvTypes[Math.floor(i / 2) % kvTypes.length] ?? "f16";
    return attentionCase({ ...PLAIN_ATTENTION, kvType, ...rows, ...options, seed: firstSeed + i });
  });
}

/** Where scales end: vectors of zeros, those too small for one, and such that no half could hold. */
export function extremeScaleCases(firstSeed: number): Case[] {
  return [0, 1e-32, 1e30].flatMap((spread, i) =>
    [
      [1, 1],
      [5, 4],
    ].map((counts, j) =>
      attentionCase({
        ...PLAIN_ATTENTION,
        kvType: "int8",
        past: [41, 300],
        counts,
        spread,
        seed: firstSeed + 2 * i + j,
      }),
    ),
  );
}

/** SmolLM2-135M (9 query heads, 3 KV heads, head_dim 64) and others of the size of real heads, decode and prefill. */
export function realAttentionCases(firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  const heads = [
    [9, 3, 64],
    [8, 2, 128],
    [4, 1, 256],
    [32, 32, 32],
  ] as const;
  const steps = [
    { past: [0], counts: [1] },
    { past: [0], counts: [24] },
    { past: [511, 512, 40], counts: [1, 1, 1] },
    { past: [250], counts: [9] },
    { past: [700, 3], counts: [2, 1] },
  ];
  let seed = firstSeed;
  return heads.flatMap(([queryHeads, kvHeads, headDim]) =>
    steps.flatMap(({ past, counts }) =>
      kvTypes.map((kvType) =>
        attentionCase({
          kvType,
          heads: queryHeads,
          kvHeads,
          headDim,
          valueDim: headDim,
          rotaryDim: headDim,
          interleaved: false,
          norm: headDim === 128 ? "rms" : "none",
          sinks: false,
          softcap: 0,
          clip: 0,
          gated: false,
          window: null,
          past,
          counts,
          split: Math.max(...past) > 300,
          paddingRows: 0,
          spread: 1,
          seed: seed++,
        }),
      ),
    ),
  );
}
