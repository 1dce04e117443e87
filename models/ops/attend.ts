/** Attention of one layer over the pages. */
import type { Slot } from "../../device/arena.ts";
import { attentionFused, attentionPaged } from "../../kernels/attention/attention.ts";
import { attentionReduce } from "../../kernels/attention/attention_reduce.ts";
import { kvDims, pageWords } from "../../kernels/attention/kv_page.ts";
import { qkNorm } from "../../kernels/attention/qk_norm.ts";
import { NORM, unitsOf } from "../../kernels/attention/rope_heads.ts";
import { ropeKv } from "../../kernels/attention/rope_kv.ts";
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import { headDimFor, ROW } from "../../kernels/fragments/batch.ts";
import { NONE } from "../../kernels/kernel.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import { type AttentionSpec, stackedColumns } from "./attentionSpec.ts";

/** qk-norm, rope, KV write and attention over the pages: (rows, heads · value_dim). */
export function attend(step: Step, qkv: { slot: Slot; stride: number }, spec: AttentionSpec): Activation {
  const { recorder, kvType, rows, batch, aux } = step;
  const { heads, kvHeads, headDim, valueDim = headDim } = spec;
  const kv = step.kv[spec.layer];
  if (kv === undefined) throw new RangeError(`layer ${spec.layer}: no pages`);
  const rope = step.ropes[spec.rope];
  if (rope === undefined) throw new RangeError(`layer ${spec.layer}: no rope table ${spec.rope}`);
  const whole = valueDim % BLOCK_COLS === 0; // then each head's sums are its own
  const out = newActivation(step, rows, heads * valueDim, "attention", whole);
  const units = unitsOf(heads, kvHeads);
  const room = headDimFor(Math.max(headDim, valueDim));
  const { maxStorageBufferBindingSize, maxBufferSize } = recorder.gpu.limits;
  const partialBytes = rows * units * step.splits * (valueDim + 2) * 16;
  // One workgroup for all keys gives the same bits where the splits' results would not fit a buffer.
  const splits = partialBytes <= Math.min(maxStorageBufferBindingSize, maxBufferSize) ? step.splits : 0;
  const { gate, ...columns } = columnParams(spec);
  const heading = {
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    value_dim: valueDim,
    head_words: headDim / kvDims(kvType),
    value_words: valueDim / kvDims(kvType),
    page_words: pageWords(kvType, kvHeads, headDim, valueDim),
    value_base: pageWords(kvType, kvHeads, headDim, 0),
    qkv_stride: qkv.stride,
    ...columns,
    rotary_dim: spec.rotaryDim,
    interleaved: spec.interleaved === true ? 1 : 0,
    ...normParams(spec),
    clip: spec.clip ?? 0,
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
    gate_at: gate.at,
    gate_stride: gate.stride,
  };
  const scores = { scale: spec.scale, softcap: spec.softcap ?? 0, window: spec.window ?? NONE };
  const params = { ...heading, ...finish, ...scores };
  const partials = recorder.slot(splits > 0 ? partialBytes : 16, "splits");
  const grid = [units, rows, Math.max(splits, 1)] as const;
  if (spec.qkNorm?.over === "projection") normProjections(step, qkv, spec);
  if (step.oneRowEach) {
    const buffers = { qkv: qkv.slot, rope, aux, batch, kv, out: out.slot, partials };
    attentionFused(kvType, room).launch(recorder, { buffers, params, grid }, "attention");
  } else {
    ropeKv(kvType, room).launch(
      recorder,
      { buffers: { rope, aux, batch, qkv: qkv.slot, kv }, params: heading, grid: [units, rows, 1] },
      "rope",
    );
    const buffers = { qkv: qkv.slot, kv, aux, batch, out: out.slot, partials };
    attentionPaged(kvType, room).launch(recorder, { buffers, params, grid }, "attention");
  }
  if (splits > 0) {
    const buffers = { partials, qkv: qkv.slot, aux, batch, out: out.slot };
    attentionReduce(room).launch(
      recorder,
      { buffers, params: { ...heading, ...finish }, grid: [units, rows, 1] },
      "attention splits",
    );
  }
  return out;
}

/** Where heads lie in qkv. */
function columnParams(spec: AttentionSpec) {
  const { q, k, v, gate = { at: NONE, stride: 0 } } = spec.columns ?? stackedColumns(spec);
  return { q_at: q.at, q_stride: q.stride, k_at: k.at, k_stride: k.stride, v_at: v.at, v_stride: v.stride, gate };
}

/** The norm that attention does itself: of each head. */
function normParams({ qkNorm: norm, headDim }: AttentionSpec) {
  const byHead = norm?.over === "head" ? norm : undefined;
  return {
    norm: NORM[byHead?.kind ?? "none"],
    norm_after: byHead?.afterRope === true ? 1 : 0,
    q_norm: byHead?.q?.offset ?? NONE,
    k_norm: byHead?.k?.offset ?? NONE,
    norm_stride: byHead?.weightsEachHead === true ? headDim : 0,
    q_bias: byHead?.qBias?.offset ?? NONE,
    k_bias: byHead?.kBias?.offset ?? NONE,
    eps: byHead?.eps ?? 0,
  };
}

/** The norm that ties all heads together, before attention. */
function normProjections(step: Step, qkv: { slot: Slot; stride: number }, spec: AttentionSpec): void {
  const { heads, kvHeads, headDim, qkNorm: norm } = spec;
  if (norm?.over !== "projection") return;
  const { q_at, q_stride, k_at, k_stride } = columnParams(spec);
  const params = {
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    qkv_stride: qkv.stride,
    ...{ q_at, q_stride, k_at, k_stride },
    q_norm: norm.q.offset,
    k_norm: norm.k.offset,
    eps: norm.eps,
  };
  const buffers = { aux: step.aux, qkv: qkv.slot };
  qkNorm.launch(step.recorder, { buffers, params, grid: [2, step.rows, 1] }, "qk_norm");
}
