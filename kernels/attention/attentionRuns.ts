/** A step of rope, KV write and paged attention: fused for one row a sequence, in two dispatches for several, split or not; and the case of it. */
import { columns, padding, runSums, untouched } from "../caseData.ts";
import { type ActivationShape, activationShape } from "../fragments/activation.ts";
import { headDimFor, ROW, splitsOf } from "../fragments/batch.ts";
import { NONE } from "../kernel.ts";
import type { Case, Comparison, Testbed } from "../testbed.ts";
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
  pagesWith,
  vectors,
} from "./attentionData.ts";
import { caches, EPS, reference } from "./attentionReference.ts";
import { pageParams } from "./kv_page.ts";
import { type KvType, kvNumbers } from "./kv_types.ts";
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
  const { heads, kvHeads, headDim, valueDim, kvType } = shape;
  const out = activationShape(from.outRows, heads * valueDim);
  const splits = splitsOf(Math.max(...from.lengths)) || (split ? 1 : 0);
  const room = headDimFor(Math.max(headDim, valueDim));
  const quads = fused ? fusedQuads(heads, kvHeads) : pagedQuads(queriesFrom, room);
  const units = unitsOf(heads, kvHeads, quads);
  const group = shape.seed % 2; // of two, by turns
  const [kv, result, qkv] = [bed.buffer(pages), bed.output(out.bytes / 4), bed.buffer(from.qkv)];
  const partials = bed.output(Math.max(from.outRows * heads * splits * (valueDim + 2), 4));
  const common = { rope: bed.buffer(from.rope), aux: bed.buffer(from.aux), batch: bed.buffer(batchOf(from, group)) };
  const buffers = { qkv, kv, partials, out: result, ...common };
  const params = { ...headParams(shape, from, group), ...outParams(shape, from, out), units, splits };
  await bed.submit((recorder) => {
    if (shape.norm === "projection") {
      qkNorm.launch(recorder, { buffers, params: { ...params, ...weightsAt(from) }, grid: [2, from.outRows, 1] });
    }
    if (!fused || queriesFrom !== "storage") {
      ropeKv(kvType, room).launch(recorder, { buffers, params, grid: [unitsOf(heads, kvHeads, 1), from.outRows, 1] });
    }
    const kernel = fused
      ? oneRowAttention(kvType, room, quads, queriesFrom)
      : attentionPaged(kvType, room, queriesFrom);
    kernel.launch(recorder, { buffers, params, grid: [units, from.outRows, Math.max(splits, 1)] });
    if (splits > 0) attentionReduce.launch(recorder, { buffers, params, grid: [heads, from.outRows, 1] });
  });
  return { shape: out, out: await bed.f32(result), pages: await bed.u32(kv) };
}

/** Where the weights of the norms of q and k lie in aux, before sinks and biases. */
const weightsAt = ({ qNorm }: AttentionInputs) => ({ q_norm: 0, k_norm: qNorm.length });

/** Sizes of heads and pages, and what is done to q and k. */
function headParams(shape: AttentionShape, from: AttentionInputs, group: number) {
  const { headDim, valueDim, kvType, norm } = shape;
  const biasAt = from.qNorm.length + from.kNorm.length + from.sinks.length;
  const biases = { q_bias: biasAt, k_bias: biasAt + headDim };
  const unweighted = norm === "projection" || norm === "rms after rope without weights";
  return {
    ...pageParams(kvType, shape),
    qkv_stride: from.stride,
    q_at: 0,
    q_stride: from.qStride,
    k_at: from.kAt,
    k_stride: headDim,
    v_at: from.vAt,
    v_stride: valueDim,
    rotary_dim: shape.rotaryDim,
    interleaved: shape.interleaved ? 1 : 0,
    norm: HEAD_NORMS[norm],
    norm_after: norm.startsWith("rms after rope") ? 1 : 0,
    ...(unweighted ? { q_norm: NONE, k_norm: NONE } : weightsAt(from)),
    norm_stride: norm === "layer each head" ? headDim : 0,
    ...(norm === "layer with biases" ? biases : { q_bias: NONE, k_bias: NONE }),
    eps: EPS,
    clip: shape.clip,
    table_word: ROW.table + group,
    zero: 0,
  };
}

/** What becomes of scores and of values, and where the activation lies. */
const outParams = (shape: AttentionShape, from: AttentionInputs, out: ActivationShape) => ({
  first_row: 0,
  end_row: from.outRows,
  sinks: shape.sinks ? from.qNorm.length + from.kNorm.length : NONE,
  out_stride: out.stride,
  out_runs: out.runs,
  out_sums: shape.valueDim % 32 === 0 ? out.sums : NONE,
  gate_at: shape.gated ? shape.headDim : NONE,
  gate_stride: from.qStride,
  scale: 1 / Math.sqrt(shape.headDim),
  softcap: shape.softcap,
  window: shape.window ?? NONE,
});

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
        padding(got.out, got.shape),
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
