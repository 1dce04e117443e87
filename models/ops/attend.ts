/** Attention of one layer over the pages. */
import type { Slot } from "../../device/arena.ts";
import { attentionFused, attentionPaged } from "../../kernels/attention/attention.ts";
import { attentionReduce } from "../../kernels/attention/attention_reduce.ts";
import { kvDims, pageWords } from "../../kernels/attention/kv_page.ts";
import { unitsOf } from "../../kernels/attention/rope_heads.ts";
import { ropeKv } from "../../kernels/attention/rope_kv.ts";
import { BLOCK_COLS, BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { headDimFor, ROW } from "../../kernels/fragments/batch.ts";
import { NONE } from "../../kernels/kernel.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import type { Vector } from "../weightPlan.ts";

/** What attention of one layer is, besides its projections. */
export interface AttentionSpec {
  /** Index of the layer's pages in `step.kv`. */
  readonly layer: number;
  /** Which block table of a row: 0 for the first cache group. */
  readonly group: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Which table of rotations. */
  readonly rope: number;
  /** Components of a head that are rotated; 0: none. */
  readonly rotaryDim: number;
  readonly scale: number;
  readonly window: number | null;
  readonly softcap?: number;
  readonly interleaved?: boolean;
  readonly qNorm?: Vector;
  readonly kNorm?: Vector;
  readonly sinks?: Vector;
  readonly eps?: number;
}

/** qk-norm, rope, KV write and attention over the pages: (rows, heads · head_dim). */
export function attend(step: Step, qkv: { slot: Slot; stride: number }, spec: AttentionSpec): Activation {
  const { recorder, kvType, rows, batch, aux } = step;
  const { heads, kvHeads, headDim } = spec;
  const kv = step.kv[spec.layer];
  if (kv === undefined) throw new RangeError(`layer ${spec.layer}: no pages`);
  const rope = step.ropes[spec.rope];
  if (rope === undefined) throw new RangeError(`layer ${spec.layer}: no rope table ${spec.rope}`);
  const whole = headDim % BLOCK_COLS === 0; // then each head's sums are its own
  const out = newActivation(step, rows, heads * headDim, "attention", whole);
  const units = unitsOf(heads, kvHeads);
  const { maxStorageBufferBindingSize, maxBufferSize } = recorder.gpu.limits;
  const partialBytes = rows * units * step.splits * (headDim + 2) * 16;
  // One workgroup for all keys gives the same bits where the splits' results would not fit a buffer.
  const splits = partialBytes <= Math.min(maxStorageBufferBindingSize, maxBufferSize) ? step.splits : 0;
  const heading = {
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    head_words: headDim / kvDims(kvType),
    page_words: pageWords(kvType, kvHeads, headDim),
    qkv_stride: qkv.stride,
    k_offset: Math.ceil((heads * headDim) / BLOCK_ROWS) * BLOCK_ROWS,
    v_offset: (Math.ceil((heads * headDim) / BLOCK_ROWS) + Math.ceil((kvHeads * headDim) / BLOCK_ROWS)) * BLOCK_ROWS,
    rotary_dim: spec.rotaryDim,
    interleaved: spec.interleaved === true ? 1 : 0,
    q_norm: spec.qNorm?.offset ?? NONE,
    k_norm: spec.kNorm?.offset ?? NONE,
    eps: spec.eps ?? 0,
    table_word: ROW.table + spec.group,
    zero: 0,
  };
  const finish = {
    units,
    splits,
    sinks: spec.sinks?.offset ?? NONE,
    out_stride: out.shape.stride,
    out_runs: out.shape.runs,
    out_sums: whole ? out.shape.sums : NONE,
  };
  const scores = { scale: spec.scale, softcap: spec.softcap ?? 0, window: spec.window ?? NONE };
  const params = { ...heading, ...finish, ...scores };
  const partials = recorder.slot(splits > 0 ? partialBytes : 16, "splits");
  const grid = [units, rows, Math.max(splits, 1)] as const;
  if (step.oneRowEach) {
    const buffers = { qkv: qkv.slot, rope, aux, batch, kv, out: out.slot, partials };
    attentionFused(kvType, headDimFor(headDim)).launch(recorder, { buffers, params, grid }, "attention");
  } else {
    ropeKv(kvType, headDimFor(headDim)).launch(
      recorder,
      { buffers: { rope, aux, batch, qkv: qkv.slot, kv }, params: heading, grid: [units, rows, 1] },
      "rope",
    );
    const buffers = { qkv: qkv.slot, kv, aux, batch, out: out.slot, partials };
    attentionPaged(kvType, headDimFor(headDim)).launch(recorder, { buffers, params, grid }, "attention");
  }
  if (splits > 0) {
    const buffers = { partials, aux, batch, out: out.slot };
    attentionReduce(headDimFor(headDim)).launch(
      recorder,
      { buffers, params: { ...heading, ...finish }, grid: [units, rows, 1] },
      "attention splits",
    );
  }
  return out;
}
