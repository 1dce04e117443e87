/** Inputs of attention's cases: random vectors, block tables, pages and the batch. */
import { KEY_BLOCK, PAGE_TOKENS, ROW_WORDS } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";
import { Random } from "../testbed.ts";
import { keyWords, pageWords, valueWords } from "./kv_page.ts";
import { type KvType, kvNumbers } from "./kv_types.ts";

/** The norms that queries and keys can have in a case. */
export type NormShape =
  | "none"
  | "rms"
  | "rms after rope"
  | "rms after rope without weights"
  | "layer each head"
  | "layer with biases"
  | "projection";

/** One case: shapes, options, lengths, and the seed of its numbers. */
export interface AttentionShape {
  readonly kvType: KvType;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly norm: NormShape;
  readonly sinks: boolean;
  /** 0 for none. */
  readonly softcap: number;
  /** 0 for none. */
  readonly clip: number;
  /** Whether each head of q has its output gate behind it. */
  readonly gated: boolean;
  readonly window: number | null;
  /** Tokens in the cache before the step, by sequence; and rows of each in the step. */
  readonly past: readonly number[];
  readonly counts: readonly number[];
  /** Whether each split of keys is a workgroup of its own. */
  readonly split: boolean;
  /** Rows of a bucket behind the last real one: no slot, no keys, zeros out. */
  readonly paddingRows: number;
  /** Factor of keys and values, whose clamp to f16 it then tries; queries are divided by it unless it is 0. */
  readonly spread: number;
  readonly seed: number;
}

/** Heads of a model without any option. */
export const PLAIN_ATTENTION = {
  heads: 6,
  kvHeads: 2,
  headDim: 64,
  valueDim: 64,
  rotaryDim: 64,
  interleaved: false,
  norm: "none",
  sinks: false,
  softcap: 0,
  clip: 0,
  gated: false,
  window: null,
  split: false,
  paddingRows: 0,
  spread: 1,
} as const satisfies Omit<AttentionShape, "seed" | "kvType" | "past" | "counts">;

/** A word of NaNs, by which a read of a free slot shows. */
export const emptyWord = (kvType: KvType): number =>
  kvNumbers[kvType].encode(new Float64Array(kvNumbers[kvType].dims).fill(Number.NaN)).at(-1) ?? Number.NaN;

interface Row {
  readonly sequence: number;
  readonly position: number;
}

/** Keys and values by sequence, KV head and token. */
export type Caches = { k: Float64Array; v: Float64Array }[][][];

/** Random vectors, pages and tables of one case. */
export function attentionInputs(shape: AttentionShape) {
  const random = new Random(shape.seed);
  const rows = shape.counts.flatMap((count, sequence): Row[] =>
    Array.from({ length: count }, (_, i) => ({ sequence, position: (shape.past[sequence] ?? Number.NaN) + i })),
  );
  const { heads, kvHeads, headDim, valueDim } = shape;
  const qStride = headDim + (shape.gated ? valueDim : 0);
  const kAt = heads * qStride + 4;
  const vAt = kAt + kvHeads * headDim + 4;
  const stride = vAt + kvHeads * valueDim + 4;
  const scaled = (v: number, column: number) => (column < kAt ? v / (shape.spread || 1) : v * shape.spread);
  const qkv = random.floats((rows.length + shape.paddingRows) * stride, 1.5).map((v, i) => scaled(v, i % stride));
  const lengths = shape.past.map((past, i) => past + (shape.counts[i] ?? Number.NaN));
  const pagesEach = lengths.map((length) => Math.ceil(length / PAGE_TOKENS));
  const pages = pagesEach.reduce((a, b) => a + b, 0) + 3;
  const free = Array.from({ length: pages }, (_, i) => i).sort(() => random.next() - 0.5);
  const tables = pagesEach.map((count) => free.splice(0, count));
  const firstPages = shape.past.map((past) => {
    const low = shape.window === null ? 0 : Math.max(past + 1 - shape.window, 0);
    return (Math.floor(low / KEY_BLOCK) * KEY_BLOCK) / PAGE_TOKENS;
  });
  const positions = Math.max(...lengths);
  const rope = Float32Array.from({ length: positions * shape.rotaryDim }, (_, i) => {
    const [position, j] = [Math.floor(i / shape.rotaryDim), i % shape.rotaryDim];
    const half = shape.rotaryDim / 2;
    const angle = position * 100 ** (-(j % half) / half);
    return j < half ? Math.cos(angle) : Math.sin(angle);
  });
  const each = shape.norm === "layer each head" || shape.norm === "projection";
  const [qNorm, kNorm] = [random.floats((each ? heads : 1) * headDim), random.floats((each ? kvHeads : 1) * headDim)];
  const sinks = random.floats(heads, 3);
  const [qBias, kBias] =
    shape.norm === "layer with biases" ? [random.floats(headDim), random.floats(headDim)] : [[], []];
  const aux = new Float32Array([...qNorm, ...kNorm, ...sinks, ...qBias, ...kBias]);
  const outRows = rows.length + shape.paddingRows;
  return {
    random,
    rows,
    outRows,
    stride,
    qStride,
    kAt,
    vAt,
    qkv,
    lengths,
    pages,
    tables,
    firstPages,
    rope,
    qNorm,
    kNorm,
    sinks,
    qBias,
    kBias,
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

/** Calls `visit` with every vector of a cache and the indices of its words, that of its scale the last. */
export function vectors(
  shape: AttentionShape,
  tables: readonly number[][],
  cache: Caches,
  visit: (at: number[], vector: Float64Array) => void,
) {
  const { kvType, kvHeads, headDim, valueDim } = shape;
  const { dims, scaled } = kvNumbers[kvType];
  const [kWords, vWords] = [keyWords(kvType, headDim), valueWords(kvType, valueDim)];
  const size = pageWords(kvType, kvHeads, headDim, valueDim);
  const values = kvHeads * PAGE_TOKENS * kWords;
  cache.forEach((heads, sequence) => {
    heads.forEach((tokens, h) => {
      tokens.forEach(({ k, v }, token) => {
        const base = (tables[sequence]?.[Math.floor(token / PAGE_TOKENS)] ?? Number.NaN) * size;
        const offset = token % PAGE_TOKENS;
        const kAt = (w: number) => base + (h * kWords + w) * PAGE_TOKENS + offset;
        const vAt = (w: number) => base + values + (h * PAGE_TOKENS + offset) * vWords + w;
        const scales = scaled ? [kAt(kWords - 2), kAt(kWords - 1)] : [];
        visit([...Array.from({ length: kWords - scales.length }, (_, w) => kAt(w)), ...scales.slice(0, 1)], k);
        visit([...Array.from({ length: valueDim / dims }, (_, w) => vAt(w)), ...scales.slice(1)], v);
      });
    });
  });
}

/**
 * The u32 buffer of the batch: records of rows, padding ones last, then block tables. Where the layer is of the second cache group, what is of
 * the first leads nowhere; and no table has pages of blocks that lie before a window.
 */
export function batchOf(from: AttentionInputs, group = 0): Uint32Array {
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
    const start = starts[sequence] ?? Number.NaN;
    const [first, tables] = group === 0 ? [slot, [start, NONE]] : [0, [NONE, start]];
    batch.set([0, position, first, position + 1, position, ...tables], row * ROW_WORDS);
  });
  for (let row = from.rows.length; row < from.outRows; row++) batch.set([0, 0, NONE, 0, 0, 0], row * ROW_WORDS);
  for (const [i, table] of from.tables.entries()) {
    const shown = table.map((page, index) => (index < (from.firstPages[i] ?? 0) ? NONE : page));
    batch.set(shown, starts[i]);
  }
  return batch;
}

/** A layer's pages with `cache` in them and NaN in every other slot. */
export function pagesWith(shape: AttentionShape, from: AttentionInputs, cache: Caches): Uint32Array {
  const { kvType, kvHeads, headDim, valueDim } = shape;
  const pages = new Uint32Array(from.pages * pageWords(kvType, kvHeads, headDim, valueDim)).fill(emptyWord(kvType));
  vectors(shape, from.tables, cache, (at, vector) => {
    for (const [i, word] of kvNumbers[kvType].encode(vector).entries()) pages[at[i] ?? Number.NaN] = word;
  });
  return pages;
}
