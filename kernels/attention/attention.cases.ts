/** Cases of rope, KV write and paged attention: fused for one row a sequence, in two dispatches for several, split or not. */

import { columns, runSums, untouched } from "../caseData.ts";
import { f16Bits, f16FromBits, f32Bits, f32FromBits } from "../formats/halves.ts";
import { activationShape } from "../fragments/activation.ts";
import { headDimFor, KEY_SPLIT, PAGE_TOKENS, ROW_WORDS } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";
import { type Case, type Comparison, Random, type Testbed } from "../testbed.ts";
import { attentionFused, attentionPaged } from "./attention.ts";
import { attentionReduce } from "./attention_reduce.ts";
import { cached, KV_TYPES, type KvType, kvDims, pageWords } from "./kv_page.ts";
import { unitsOf } from "./rope_heads.ts";
import { ropeKv } from "./rope_kv.ts";

/** One case: shapes, options, lengths, and the seed of its numbers. */
export interface AttentionShape {
  readonly kvType: KvType;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly qkNorm: boolean;
  readonly sinks: boolean;
  /** 0 for none. */
  readonly softcap: number;
  readonly window: number | null;
  /** Tokens in the cache before the step, by sequence; and rows of each in the step. */
  readonly past: readonly number[];
  readonly counts: readonly number[];
  /** Whether each split of keys is a workgroup of its own. */
  readonly split: boolean;
  /** Rows of a bucket behind the last real one: no slot, no keys, zeros out. */
  readonly paddingRows: number;
  /** Factor of keys and values, whose clamp to f16 it then tries; queries are divided by it. */
  readonly spread: number;
  readonly seed: number;
}

const EPS = 1e-6;
/** exp of drivers is good to about 1e-6; a key that rounds to the other half, where its f32 differs in the last bit, costs more. */
const LIMIT = { f16: 1e-7, f32: 1e-9 } as const;
/** A stored half may round the other way where the f32 before it differs in its last bit. */
const STORED_LIMIT = 1e-6;

/** NaN, by which a read of a free slot shows. */
const EMPTY = { f16: 0x7e007e00, f32: 0x7fc00000 } as const;

interface Row {
  readonly sequence: number;
  readonly position: number;
}

/** Random vectors, pages and tables of one case. */
export function attentionInputs(shape: AttentionShape) {
  const random = new Random(shape.seed);
  const rows = shape.counts.flatMap((count, sequence): Row[] =>
    Array.from({ length: count }, (_, i) => ({ sequence, position: (shape.past[sequence] ?? Number.NaN) + i })),
  );
  const { heads, kvHeads, headDim } = shape;
  const [kOffset, vOffset] = [heads * headDim + 4, (heads + kvHeads) * headDim + 8];
  const stride = vOffset + kvHeads * headDim + 4;
  const scaled = (v: number, column: number) => (column < kOffset ? v / shape.spread : v * shape.spread);
  const qkv = random.floats((rows.length + shape.paddingRows) * stride, 1.5).map((v, i) => scaled(v, i % stride));
  const lengths = shape.past.map((past, i) => past + (shape.counts[i] ?? Number.NaN));
  const pagesEach = lengths.map((length) => Math.ceil(length / PAGE_TOKENS));
  const pages = pagesEach.reduce((a, b) => a + b, 0) + 3;
  const free = Array.from({ length: pages }, (_, i) => i).sort(() => random.next() - 0.5);
  const tables = pagesEach.map((count) => free.splice(0, count));
  const positions = Math.max(...lengths);
  const rope = Float32Array.from({ length: positions * shape.rotaryDim }, (_, i) => {
    const [position, j] = [Math.floor(i / shape.rotaryDim), i % shape.rotaryDim];
    const half = shape.rotaryDim / 2;
    const angle = position * 100 ** (-(j % half) / half);
    return j < half ? Math.cos(angle) : Math.sin(angle);
  });
  const [qNorm, kNorm] = [random.floats(headDim), random.floats(headDim)];
  const sinks = random.floats(heads, 3);
  const aux = new Float32Array([...qNorm, ...kNorm, ...sinks]);
  const outRows = rows.length + shape.paddingRows;
  return {
    random,
    rows,
    outRows,
    stride,
    kOffset,
    vOffset,
    qkv,
    lengths,
    pages,
    tables,
    rope,
    qNorm,
    kNorm,
    sinks,
    aux,
  };
}
export type AttentionInputs = ReturnType<typeof attentionInputs>;

/** The rows of a step as steps of one row each, over the same pages and tables. */
export function stepsOf(from: AttentionInputs): AttentionInputs[] {
  return from.rows.map((row, i) => ({
    ...from,
    rows: [row],
    outRows: 1,
    qkv: from.qkv.slice(i * from.stride, (i + 1) * from.stride),
  }));
}

/** One head's vector after qk-norm and rope, in f64. */
function rotated(
  shape: AttentionShape,
  from: AttentionInputs,
  row: number,
  offset: number,
  norm: Float32Array,
): Float64Array {
  const { headDim, rotaryDim, interleaved } = shape;
  const at = row * from.stride + offset;
  let v = Float64Array.from(from.qkv.subarray(at, at + headDim));
  if (shape.qkNorm) {
    const rms = 1 / Math.sqrt(v.reduce((sum, x) => sum + x * x, 0) / headDim + EPS);
    v = v.map((x, d) => x * rms * (norm[d] ?? Number.NaN));
  }
  const half = rotaryDim / 2;
  const table = (from.rows[row]?.position ?? Number.NaN) * rotaryDim;
  return v.map((x, d) => {
    if (d >= rotaryDim) return x;
    const [pair, other, first] = interleaved
      ? [d >> 1, d ^ 1, d % 2 === 0]
      : [d % half, d < half ? d + half : d - half, d < half];
    const y = (v[other] ?? Number.NaN) * (from.rope[table + half + pair] ?? Number.NaN);
    return x * (from.rope[table + pair] ?? Number.NaN) + (first ? -y : y);
  });
}

/** Keys and values by sequence, KV head and token, as the cache holds them after the step. */
export function caches(shape: AttentionShape, from: AttentionInputs) {
  const { kvHeads, headDim, kvType } = shape;
  const vector = () => Float64Array.from(from.random.floats(headDim, shape.spread), (v) => cached(v, kvType));
  const past = shape.past.map((count) =>
    Array.from({ length: kvHeads }, () => Array.from({ length: count }, () => ({ k: vector(), v: vector() }))),
  );
  const all = past.map((heads) => heads.map((tokens) => [...tokens]));
  from.rows.forEach(({ sequence }, row) => {
    for (let h = 0; h < kvHeads; h++) {
      const k = rotated(shape, from, row, from.kOffset + h * headDim, from.kNorm).map((v) => cached(v, kvType));
      const at = row * from.stride + from.vOffset + h * headDim;
      const v = Float64Array.from(from.qkv.subarray(at, at + headDim), (x) => cached(x, kvType));
      all[sequence]?.[h]?.push({ k, v });
    }
  });
  return { past, all };
}
export type Cache = ReturnType<typeof caches>["all"];

/** Attention in f64: (rows, heads · head_dim), padding rows zero. */
function reference(shape: AttentionShape, from: AttentionInputs, cache: Cache): Float64Array {
  const { heads, kvHeads, headDim } = shape;
  const out = new Float64Array(from.outRows * heads * headDim);
  from.rows.forEach(({ sequence, position }, row) => {
    for (let head = 0; head < heads; head++) {
      const q = rotated(shape, from, row, head * headDim, from.qNorm);
      const low = shape.window === null ? 0 : Math.max(0, position + 1 - shape.window);
      const keys = (cache[sequence]?.[Math.floor(head / (heads / kvHeads))] ?? []).slice(low, position + 1);
      const scores = keys.map(({ k }) => {
        const s = q.reduce((sum, x, d) => sum + x * (k[d] ?? Number.NaN), 0) / Math.sqrt(headDim);
        return shape.softcap > 0 ? shape.softcap * Math.tanh(s / shape.softcap) : s;
      });
      const sink = shape.sinks ? (from.sinks[head] ?? Number.NaN) : Number.NEGATIVE_INFINITY;
      const best = Math.max(sink, ...scores);
      const weights = scores.map((s) => Math.exp(s - best));
      const sum = weights.reduce((a, b) => a + b, Math.exp(sink - best));
      for (let d = 0; d < headDim; d++) {
        const value = keys.reduce((acc, { v }, j) => acc + (weights[j] ?? Number.NaN) * (v[d] ?? Number.NaN), 0) / sum;
        out[(row * heads + head) * headDim + d] = value;
      }
    }
  });
  return out;
}

/** Calls `visit` with the word index and dimension of every stored key and value of a cache. */
function words(
  shape: AttentionShape,
  tables: readonly number[][],
  cache: Cache,
  visit: (word: number, dim: number, value: number) => void,
) {
  const dims = kvDims(shape.kvType);
  const headWords = shape.headDim / dims;
  const size = pageWords(shape.kvType, shape.kvHeads, shape.headDim);
  cache.forEach((heads, sequence) => {
    heads.forEach((tokens, h) => {
      tokens.forEach(({ k, v }, token) => {
        const base = (tables[sequence]?.[Math.floor(token / PAGE_TOKENS)] ?? Number.NaN) * size;
        const offset = token % PAGE_TOKENS;
        for (let d = 0; d < shape.headDim; d++) {
          const w = Math.floor(d / dims);
          visit(base + (h * headWords + w) * PAGE_TOKENS + offset, d % dims, k[d] ?? Number.NaN);
          visit(base + size / 2 + (h * PAGE_TOKENS + offset) * headWords + w, d % dims, v[d] ?? Number.NaN);
        }
      });
    });
  });
}

function storeWord(buffer: Uint32Array, kvType: KvType, word: number, dim: number, value: number): void {
  if (kvType === "f32") {
    buffer[word] = f32Bits(value);
  } else {
    const mask = dim === 0 ? 0xffff0000 : 0xffff;
    buffer[word] = ((buffer[word] ?? 0) & mask) | (f16Bits(value) << (16 * dim));
  }
}

/** The u32 buffer of the batch: records of rows, padding ones last, then block tables. */
function batchOf(from: AttentionInputs): Uint32Array {
  const starts: number[] = [];
  let at = from.outRows * ROW_WORDS;
  for (const table of from.tables) {
    starts.push(at);
    at += table.length;
  }
  const batch = new Uint32Array(at);
  from.rows.forEach(({ sequence, position }, row) => {
    const table = from.tables[sequence] ?? [];
    const slot = (table[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN) * PAGE_TOKENS + (position % PAGE_TOKENS);
    batch.set([0, position, slot, position + 1, position, starts[sequence] ?? Number.NaN], row * ROW_WORDS);
  });
  for (let row = from.rows.length; row < from.outRows; row++) batch.set([0, 0, NONE, 0, 0, 0], row * ROW_WORDS);
  for (const [i, table] of from.tables.entries()) batch.set(table, starts[i]);
  return batch;
}

/** A layer's pages with `cache` in them and NaN in every other slot. */
export function pagesWith(shape: AttentionShape, from: AttentionInputs, cache: Cache): Uint32Array {
  const { kvType, kvHeads, headDim } = shape;
  const pages = new Uint32Array(from.pages * pageWords(kvType, kvHeads, headDim)).fill(EMPTY[kvType]);
  words(shape, from.tables, cache, (word, dim, value) => storeWord(pages, kvType, word, dim, value));
  return pages;
}

/** How a step of attention is launched. */
export interface AttentionPath {
  /** One dispatch for qk-norm, rope, KV write and attention; or rope_kv and attention_paged. */
  readonly fused: boolean;
  readonly split: boolean;
}

/** Runs one step over pages that hold what came before: the activation out, and the pages after it. */
export async function runAttention(
  bed: Testbed,
  shape: AttentionShape,
  from: AttentionInputs,
  pages: Uint32Array,
  { fused, split }: AttentionPath,
) {
  const { heads, kvHeads, headDim, kvType } = shape;
  const out = activationShape(from.outRows, heads * headDim);
  const units = unitsOf(heads, kvHeads);
  const splits = split ? Math.ceil(Math.max(...from.lengths) / KEY_SPLIT) : 0;
  const [kv, result, qkv] = [bed.buffer(pages), bed.output(out.bytes / 4), bed.buffer(from.qkv)];
  const partials = bed.output(Math.max(from.outRows * units * splits * (headDim + 2) * 4, 4));
  const common = { rope: bed.buffer(from.rope), aux: bed.buffer(from.aux), batch: bed.buffer(batchOf(from)) };
  const headParams = {
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    head_words: headDim / kvDims(kvType),
    page_words: pageWords(kvType, kvHeads, headDim),
    qkv_stride: from.stride,
    k_offset: from.kOffset,
    v_offset: from.vOffset,
    rotary_dim: shape.rotaryDim,
    interleaved: shape.interleaved ? 1 : 0,
    q_norm: shape.qkNorm ? 0 : NONE,
    k_norm: shape.qkNorm ? headDim : NONE,
    eps: EPS,
    table_word: 5,
    zero: 0,
  };
  const finish = {
    units,
    splits,
    sinks: shape.sinks ? 2 * headDim : NONE,
    out_stride: out.stride,
    out_runs: out.runs,
    out_sums: headDim % 32 === 0 ? out.sums : NONE,
  };
  const scores = { scale: 1 / Math.sqrt(headDim), softcap: shape.softcap, window: shape.window ?? NONE };
  const params = { ...headParams, ...finish, ...scores };
  const rowGrid = [units, from.outRows, 1] as const;
  const grid = [units, from.outRows, Math.max(splits, 1)] as const;
  await bed.submit((recorder) => {
    const buffers = { qkv, kv, partials, out: result, ...common };
    if (fused) attentionFused(kvType, headDimFor(headDim)).launch(recorder, { buffers, params, grid });
    else {
      ropeKv(kvType, headDimFor(headDim)).launch(recorder, { buffers, params: headParams, grid: rowGrid });
      attentionPaged(kvType, headDimFor(headDim)).launch(recorder, { buffers, params, grid });
    }
    if (splits > 0) {
      attentionReduce(headDimFor(headDim)).launch(recorder, {
        buffers,
        params: { ...headParams, ...finish },
        grid: rowGrid,
      });
    }
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
      if (shape.headDim % 32 === 0) {
        comparisons.push({
          name: "sums",
          got: got.out.subarray(sums, squares),
          want: runSums(want, rows, cols),
          limit: LIMIT[shape.kvType],
        });
      }
      comparisons.push(untouched(got.out, (i) => i < sums || (shape.headDim % 32 === 0 && i < sums + rows * runs)));
      return [...comparisons, ...storedCache(shape, from, cache.all, got.pages)];
    },
  };
}

/** The pages after the step: what is cached as the reference has it, every other word as it was. */
function storedCache(shape: AttentionShape, from: AttentionInputs, cache: Cache, after: Uint32Array): Comparison[] {
  const [want, got]: [number[], number[]] = [[], []];
  const cachedWords = new Set<number>();
  words(shape, from.tables, cache, (word, dim, value) => {
    cachedWords.add(word);
    want.push(value);
    got.push(decodeWord(after[word] ?? 0, shape.kvType, dim));
  });
  const strays = after.filter((word, i) => word !== EMPTY[shape.kvType] && !cachedWords.has(i)).length;
  return [
    { name: "pages", got, want, limit: STORED_LIMIT },
    { name: "words of free slots that were written", got: [strays], want: [0], limit: 0 },
  ];
}

function decodeWord(word: number, kvType: KvType, dim: number): number {
  return kvType === "f32" ? f32FromBits(word) : f16FromBits((word >>> (16 * dim)) & 0xffff);
}

function title(s: AttentionShape, fused: boolean): string {
  const flags = [
    s.qkNorm && "qk-norm",
    s.sinks && "sinks",
    s.softcap > 0 && "softcap",
    s.interleaved && "interleaved",
    s.split && "split",
    s.paddingRows > 0 && `padding=${s.paddingRows}`,
    s.spread > 1 && `spread=${s.spread}`,
  ].filter(Boolean);
  const rows = s.counts.map((count, i) => `${s.past[i]}+${count}`).join(",");
  return `${fused ? "attention_fused" : "attention_paged"} ${s.kvType} heads=${s.heads}/${s.kvHeads} head_dim=${s.headDim} rotary=${s.rotaryDim} window=${s.window ?? "none"} rows=${rows} ${flags.join(",")} seed=${s.seed}`;
}

/** `count` random shapes: fused and paged, both KV types, one to three sequences. */
export function attentionCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => attentionCase(randomShape(i, firstSeed + i)));
}

function randomShape(index: number, seed: number): AttentionShape {
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
    kvType: KV_TYPES[Math.floor(index / 2) % 2] ?? "f16",
    heads: kvHeads * random.pick([1, 2, 3, 4, 5, 8]),
    kvHeads,
    headDim,
    rotaryDim: random.next() < 0.7 ? headDim : Math.max(2, 2 * Math.floor(headDim / 8)),
    interleaved: random.next() < 0.2,
    qkNorm: random.next() < 0.3,
    sinks: random.next() < 0.25,
    softcap: random.next() < 0.2 ? 10 : 0,
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

/** SmolLM2-135M (9 query heads, 3 KV heads, head_dim 64) and others of the size of real heads, decode and prefill. */
export function realAttentionCases(firstSeed: number): Case[] {
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
      KV_TYPES.map((kvType) =>
        attentionCase({
          kvType,
          heads: queryHeads,
          kvHeads,
          headDim,
          rotaryDim: headDim,
          interleaved: false,
          qkNorm: headDim === 128,
          sinks: false,
          softcap: 0,
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
