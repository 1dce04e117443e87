/** The ops of a forward pass: each appends its dispatches, one a shard, and returns the slots it writes. */
import type { Slot } from "../device/arena.ts";
import { attentionFused, attentionPaged } from "../kernels/attention/attention.ts";
import { attentionReduce } from "../kernels/attention/attention_reduce.ts";
import { kvDims, pageWords } from "../kernels/attention/kv_page.ts";
import { unitsOf } from "../kernels/attention/rope_heads.ts";
import { ropeKv } from "../kernels/attention/rope_kv.ts";
import { embed } from "../kernels/embed.ts";
import { scaleTypeCode } from "../kernels/formats/group_scales.ts";
import { BLOCK_COLS, BLOCK_ROWS, paddedCols } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { type Activation as ActivationName, activationCode } from "../kernels/fragments/act.ts";
import { headDimFor, ROW } from "../kernels/fragments/batch.ts";
import { dotParams } from "../kernels/fragments/matmul.ts";
import { NONE } from "../kernels/kernel.ts";
import { matmulResidual } from "../kernels/matmul_residual.ts";
import { normGateUp } from "../kernels/norm_gate_up.ts";
import { normMatmul } from "../kernels/norm_matmul.ts";
import { pickRows } from "../kernels/pick_rows.ts";
import type { Matrix } from "./matrix.ts";
import { type Activation, matmulRows, newActivation, type Residual, type Step } from "./step.ts";
import type { Vector } from "./weightPlan.ts";

/** A norm whose factor is applied behind the sum: x already carries its weight. */
function normParams(eps: number | null, { shape }: Activation) {
  return { x_squares: eps === null ? NONE : shape.squares, hidden_size: shape.cols, eps: eps ?? 0 };
}

/** Rows of the embedding matrix, and what the first norm needs: (rows, hidden_size). */
export function embedTokens(step: Step, matrix: Matrix, norm: Vector, multiplier = 1): Residual {
  const z = newActivation(step, step.rows, matrix.cols, "z");
  const y = step.recorder.slot(z.shape.sums * 4, "residual");
  const { cols, group, layout, scaleType } = matrix;
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      row_words: paddedCols(cols) / layouts[layout].weightsPerWord,
      groups: Math.ceil(cols / group),
      group_cols: group,
      scale_type: scaleTypeCode(scaleType),
      first_row: firstBlock * BLOCK_ROWS,
      end_row: (firstBlock + blocks) * BLOCK_ROWS,
      multiplier,
      norm_weight: norm.offset,
      stride: z.shape.stride,
      runs: z.shape.runs,
      z_sums: z.shape.sums,
      z_squares: z.shape.squares,
    };
    const buffers = { words, scales: scales ?? words, aux: step.aux, batch: step.batch, y, z: z.slot };
    embed(layout).launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "embed_tokens");
  }
  return { y, z };
}

/** norm(x) · Wᵀ + bias for matrices of one input, behind each other: f32 (rows, Σ padded rows), and that stride. */
export function project(
  step: Step,
  matrices: readonly Matrix[],
  x: Activation,
  options: { readonly eps: number | null; readonly bias?: Vector | undefined; readonly label: string },
): { slot: Slot; stride: number } {
  const m = matmulRows(step.recorder.gpu, x.shape.rows);
  const stride = matrices.reduce((sum, { blocks }) => sum + blocks * BLOCK_ROWS, 0);
  const slot = step.recorder.slot(x.shape.rows * stride * 4, options.label);
  let row = 0;
  for (const matrix of matrices) {
    for (const { words, scales, firstBlock, blocks } of matrix.shards) {
      const first = row + firstBlock * BLOCK_ROWS;
      const params = {
        ...dotParams(matrix, x.shape, x.sums),
        ...normParams(options.eps, x),
        bias: options.bias === undefined ? NONE : options.bias.offset + first,
        delta_stride: NONE,
        out_offset: first / 4,
        out_stride: stride / 4,
      };
      // What is not used is bound to something harmless.
      const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, delta: words, out: slot };
      const grid = [blocks, x.shape.rows / m, 1] as const;
      normMatmul(matrix.layout, m).launch(step.recorder, { buffers, params, grid }, options.label);
    }
    row += matrix.blocks * BLOCK_ROWS;
  }
  return { slot, stride };
}

/** y += x · Wᵀ + bias in place, and z for the next norm. */
export function addToResidual(
  step: Step,
  matrix: Matrix,
  x: Activation,
  residual: Residual,
  options: { readonly norm: Vector; readonly bias?: Vector | undefined; readonly label: string },
): Residual {
  const m = matmulRows(step.recorder.gpu, step.rows);
  const z = newActivation(step, step.rows, residual.z.shape.cols, "z");
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      ...dotParams(matrix, x.shape, x.sums),
      bias: options.bias?.offset ?? NONE,
      norm_weight: options.norm.offset,
      delta_stride: NONE,
      first_block: firstBlock,
      y_stride: z.shape.stride / 4,
      y_runs: z.shape.runs,
      z_sums: z.shape.sums,
      z_squares: z.shape.squares,
    };
    const buffers = {
      words,
      scales: scales ?? words,
      x: x.slot,
      aux: step.aux,
      delta: words,
      y: residual.y,
      z: z.slot,
    };
    const grid = [blocks, z.shape.rows / m, 1] as const;
    matmulResidual(matrix.layout, m, layouts[matrix.layout].grouped && !x.sums).launch(
      step.recorder,
      { buffers, params, grid },
      options.label,
    );
  }
  return { y: residual.y, z };
}

/** act(norm(x) · gateᵀ + bias) · (norm(x) · upᵀ + bias): (rows, intermediate_size). */
export function gateUp(
  step: Step,
  matrix: Matrix,
  x: Activation,
  options: {
    readonly eps: number | null;
    readonly activation: ActivationName;
    readonly bias?: Vector | undefined;
    readonly label: string;
  },
): Activation {
  const m = matmulRows(step.recorder.gpu, step.rows);
  const out = newActivation(step, step.rows, (matrix.blocks / 2) * BLOCK_ROWS, "mlp");
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      ...dotParams(matrix, x.shape, x.sums),
      ...normParams(options.eps, x),
      activation: activationCode(options.activation),
      bias: options.bias?.offset ?? NONE,
      delta_stride: NONE,
      first_pair: firstBlock / 2,
      out_stride: out.shape.stride / 4,
      out_runs: out.shape.runs,
      out_sums: out.shape.sums,
    };
    const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, delta: words, out: out.slot };
    const grid = [blocks / 2, out.shape.rows / m, 1] as const;
    normGateUp(matrix.layout, m).launch(step.recorder, { buffers, params, grid }, options.label);
  }
  return out;
}

/** What attention of one layer is, besides its projections. */
export interface AttentionSpec {
  /** Index of the layer's pages in `step.kv`. */
  readonly layer: number;
  /** Which block table of a row: 0 for the first cache group. */
  readonly group: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
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
  const { recorder, kvType, rows, batch, rope, aux } = step;
  const { heads, kvHeads, headDim } = spec;
  const kv = step.kv[spec.layer];
  if (kv === undefined) throw new RangeError(`layer ${spec.layer}: no pages`);
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

/** The rows whose logits are wanted, as an activation of their own; all of them in order need no copy. */
export function pick(step: Step, x: Activation): Activation {
  if (step.everyRow) return x;
  const out = newActivation(step, step.samples, x.shape.cols, "picked");
  const params = {
    samples: step.samplesAt,
    stride: x.shape.stride,
    runs: x.shape.runs,
    x_sums: x.shape.sums,
    x_squares: x.shape.squares,
    out_sums: out.shape.sums,
    out_squares: out.shape.squares,
  };
  const buffers = { x: x.slot, batch: step.batch, out: out.slot };
  pickRows.launch(step.recorder, { buffers, params, grid: [step.samples, 1, 1] }, "pick rows");
  return out;
}
