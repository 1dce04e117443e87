/** Attention of one layer over the pages. */
import type { Slot } from "../../device/arena.ts";
import type { Gpu } from "../../device/gpu.ts";
import { attentionPaged, fusedQuads, oneRowAttention, pagedQuads } from "../../kernels/attention/attention.ts";
import { attentionReduce } from "../../kernels/attention/attention_reduce.ts";
import { pageParams } from "../../kernels/attention/kv_page.ts";
import { qkNorm } from "../../kernels/attention/qk_norm.ts";
import { NORM, unitsOf } from "../../kernels/attention/rope_heads.ts";
import { ropeKv } from "../../kernels/attention/rope_kv.ts";
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import { headDimFor, ROW } from "../../kernels/fragments/batch.ts";
import { NONE } from "../../kernels/kernel.ts";
import { queriesFor } from "../../kernels/xFrom.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import { type AttentionSpec, stackedColumns } from "./attentionSpec.ts";

/** Of a step's partial results: rows beyond are a launch of their own. */
const MAX_PARTIAL_BYTES = 64 * 2 ** 20;

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
  const room = headDimFor(Math.max(headDim, valueDim));
  const from = queriesFor(recorder.gpu);
  const quads = step.oneRowEach ? fusedQuads(heads, kvHeads) : pagedQuads(from, room);
  const units = unitsOf(heads, kvHeads, quads);
  const { heading, gate } = headParams(step, qkv, spec);
  const finish = {
    units,
    splits: step.splits,
    sinks: spec.sinks?.offset ?? NONE,
    out_stride: out.shape.stride,
    out_runs: out.shape.runs,
    out_sums: whole ? out.shape.sums : NONE,
    gate_at: gate.at,
    gate_stride: gate.stride,
  };
  const scores = { scale: spec.scale, softcap: spec.softcap ?? 0, window: spec.window ?? NONE };
  if (spec.qkNorm?.over === "projection") normProjections(step, qkv, spec);
  const fused = step.oneRowEach && from === "storage";
  if (!fused) {
    const buffers = { rope, aux, batch, qkv: qkv.slot, kv };
    const grid = [unitsOf(heads, kvHeads, 1), rows, 1] as const;
    ropeKv(kvType, room).launch(recorder, { buffers, params: heading, grid }, "rope");
  }
  const kernel = step.oneRowEach ? oneRowAttention(kvType, room, quads, from) : attentionPaged(kvType, room, from);
  const rowBytes = heads * step.splits * (valueDim + 2) * 4;
  const atOnce = rowsAtOnce(recorder.gpu, rows, rowBytes);
  const partials = recorder.slot(Math.max(atOnce * rowBytes, 16), "splits");
  for (let first_row = 0; first_row < rows; first_row += atOnce) {
    const count = Math.min(atOnce, rows - first_row);
    const params = { ...heading, ...finish, ...scores, first_row, end_row: first_row + count };
    const buffers = { qkv: qkv.slot, rope, aux, batch, kv, out: out.slot, partials };
    const grid = [units, count, Math.max(step.splits, 1)] as const;
    kernel.launch(recorder, { buffers, params, grid }, "attention");
    if (step.splits > 0)
      attentionReduce.launch(recorder, { buffers, params, grid: [heads, count, 1] }, "attention splits");
  }
  return out;
}

/** Rows whose splits' results fit one buffer, and no more than they need. Throws RangeError where not even one row's do. */
export function rowsAtOnce({ limits }: Gpu, rows: number, rowBytes: number): number {
  const most = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize, MAX_PARTIAL_BYTES);
  if (rowBytes > most) throw new RangeError(`attention: ${rowBytes} bytes of partial results a row, at most ${most}`);
  return rowBytes === 0 ? rows : Math.min(rows, Math.floor(most / rowBytes));
}

/** Params of the first step, from heads in qkv to keys and values in pages; and where output gates lie. */
function headParams({ kvType, groups }: Step, qkv: { readonly stride: number }, spec: AttentionSpec) {
  const { heads, kvHeads, headDim, valueDim = headDim } = spec;
  const { gate, ...columns } = columnParams(spec);
  const heading = {
    ...pageParams(kvType, { heads, kvHeads, headDim, valueDim }),
    qkv_stride: qkv.stride,
    ...columns,
    rotary_dim: spec.rotaryDim,
    interleaved: spec.interleaved === true ? 1 : 0,
    ...normParams(spec),
    clip: spec.clip ?? 0,
    table_word: ROW.table + (groups[spec.layer] ?? 0),
    zero: 0,
  };
  return { heading, gate };
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
