/** Attention in f64, straight from its formula: what the kernels are compared with. */
import type { AttentionInputs, AttentionShape, Caches } from "./attentionData.ts";
import { cached } from "./kv_types.ts";

/** Of norms. */
export const EPS = 1e-6;

const sum = (v: Float64Array): number => v.reduce((total, x) => total + x, 0);

/** A head's values behind its norm; `weights` are those of the head. */
function normed(
  shape: AttentionShape,
  v: Float64Array,
  weights: Float32Array,
  biases: ArrayLike<number> = [],
): Float64Array {
  const mean = shape.norm.startsWith("layer") ? sum(v) / v.length : 0;
  const factor = 1 / Math.sqrt(sum(v.map((x) => (x - mean) ** 2)) / v.length + EPS);
  const weighted = shape.norm !== "rms after rope without weights";
  return v.map((x, d) => (x - mean) * factor * (weighted ? (weights[d] ?? Number.NaN) : 1) + (biases[d] ?? 0));
}

/** All heads of a projection, each as long as the next, normed where the norm comes before rope. */
function normedHeads(
  shape: AttentionShape,
  heads: Float64Array[],
  weights: Float32Array,
  biases: ArrayLike<number>,
): Float64Array[] {
  const { headDim } = shape;
  switch (shape.norm) {
    case "rms":
    case "layer with biases":
      return heads.map((v) => normed(shape, v, weights, biases));
    case "layer each head":
      return heads.map((v, h) => normed(shape, v, weights.subarray(h * headDim, (h + 1) * headDim)));
    case "projection": {
      const all = normed(shape, Float64Array.from(heads.flatMap((v) => [...v])), weights);
      return heads.map((_, h) => all.subarray(h * headDim, (h + 1) * headDim));
    }
    default:
      return heads;
  }
}

const clipped = ({ clip }: AttentionShape, v: number): number => (clip > 0 ? Math.min(Math.max(v, -clip), clip) : v);

/** A head's vector turned to its row's position. */
export function turned(shape: AttentionShape, from: AttentionInputs, row: number, v: Float64Array): Float64Array {
  const { rotaryDim, interleaved } = shape;
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

/** The heads of q or k after qk-norm, clip and rope. */
function rotatedHeads(shape: AttentionShape, from: AttentionInputs, row: number, which: "q" | "k"): Float64Array[] {
  const { headDim } = shape;
  const [count, at, stride, weights, biases] =
    which === "q"
      ? [shape.heads, 0, from.qStride, from.qNorm, from.qBias]
      : [shape.kvHeads, from.kAt, headDim, from.kNorm, from.kBias];
  const plain = Array.from({ length: count }, (_, h) => {
    const begin = row * from.stride + at + h * stride;
    return Float64Array.from(from.qkv.subarray(begin, begin + headDim));
  });
  const after = shape.norm.startsWith("rms after rope");
  return normedHeads(shape, plain, weights, biases).map((v) => {
    const y = turned(
      shape,
      from,
      row,
      v.map((x) => clipped(shape, x)),
    );
    return after ? normed(shape, y, weights) : y;
  });
}

/** Keys and values by sequence, KV head and token, as the cache holds them after the step. */
export function caches(shape: AttentionShape, from: AttentionInputs) {
  const { kvHeads, headDim, valueDim, kvType } = shape;
  const vector = (length: number) => cached(from.random.floats(length, shape.spread), kvType);
  const past: Caches = shape.past.map((count) =>
    Array.from({ length: kvHeads }, () =>
      Array.from({ length: count }, () => ({ k: vector(headDim), v: vector(valueDim) })),
    ),
  );
  const all = past.map((heads) => heads.map((tokens) => [...tokens]));
  from.rows.forEach(({ sequence }, row) => {
    for (const [h, key] of rotatedHeads(shape, from, row, "k").entries()) {
      const k = cached(key, kvType);
      const at = row * from.stride + from.vAt + h * valueDim;
      const v = cached(
        from.qkv.subarray(at, at + valueDim).map((x) => clipped(shape, x)),
        kvType,
      );
      all[sequence]?.[h]?.push({ k, v });
    }
  });
  return { past, all };
}

/** Attention: (rows, heads · value_dim), padding rows zero. */
export function reference(shape: AttentionShape, from: AttentionInputs, cache: Caches): Float64Array {
  const { heads, kvHeads, headDim, valueDim } = shape;
  const out = new Float64Array(from.outRows * heads * valueDim);
  from.rows.forEach(({ sequence, position }, row) => {
    for (const [head, q] of rotatedHeads(shape, from, row, "q").entries()) {
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
      for (let d = 0; d < valueDim; d++) {
        const value = keys.reduce((acc, { v }, j) => acc + (weights[j] ?? Number.NaN) * (v[d] ?? Number.NaN), 0) / sum;
        const gate = from.qkv[row * from.stride + head * from.qStride + headDim + d] ?? Number.NaN;
        out[(row * heads + head) * valueDim + d] = shape.gated ? value / (1 + Math.exp(-gate)) : value;
      }
    }
  });
  return out;
}
