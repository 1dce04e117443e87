/** Latent attention of one layer over the pages. */
import type { Slot } from "../../device/arena.ts";
import { attentionReduce } from "../../kernels/attention/attention_reduce.ts";
import { keyWords, pageWords, valueWords } from "../../kernels/attention/kv_page.ts";
import { type KvType, PLAIN_KV_TYPES, type PlainKvType } from "../../kernels/attention/kv_types.ts";
import { LATENT_QUADS, LATENT_QUERIES, latentAttention } from "../../kernels/attention/latent_attention.ts";
import { latentKv } from "../../kernels/attention/latent_kv.ts";
import { LATENT_ROWS, type LatentRows, latentQuery } from "../../kernels/attention/latent_query.ts";
import { latentValue } from "../../kernels/attention/latent_value.ts";
import { unitsOf } from "../../kernels/attention/rope_heads.ts";
import { scaleTypeCode } from "../../kernels/formats/group_scales.ts";
import { BLOCK_COLS, BLOCK_ROWS, paramWords, runCount } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { latentWidthFor, ROW } from "../../kernels/fragments/batch.ts";
import { dotParams } from "../../kernels/fragments/matmul.ts";
import { NONE } from "../../kernels/kernel.ts";
import { PAD_RUNS, padRows } from "../../kernels/pad_rows.ts";
import { rowsVariant } from "../../kernels/variantNames.ts";
import { queriesFor } from "../../kernels/xFrom.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { rowsAtOnce } from "./attend.ts";
import { project } from "./project.ts";
import { sortColumns } from "./sortColumns.ts";

/** All that `attendLatent` asks. */
export interface LatentSpec {
  /** Index of the layer's pages in `step.kv`. */
  readonly layer: number;
  readonly heads: number;
  /** Width of a latent: even, at most 512. */
  readonly latent: number;
  /** Dimensions of a head's query that are not rotated, those that are, and of its value. */
  readonly nope: number;
  readonly rotaryDim: number;
  readonly valueDim: number;
  /** Which table of rotations. */
  readonly rope: number;
  readonly interleaved: boolean;
  readonly scale: number;
  /** Of both norms. */
  readonly eps: number;
  /** (latent) */
  readonly kvNorm: Vector;
  /** Where queries are of low rank: the norm and the projection behind it. */
  readonly low: { readonly norm: Vector; readonly matrices: readonly Matrix[]; readonly rank: number } | null;
  /** Heads of nope rows, and of value_dim rows: (heads, …, latent). */
  readonly keys: Matrix;
  readonly values: Matrix;
}

/** A projection's result: f32 (rows, stride). */
interface Projected {
  readonly slot: Slot;
  readonly stride: number;
}

/**
 * Latent attention over the pages: (rows, heads · value_dim). `x` has queries, or their latents, in its first columns, and the latents
 * of keys and values with what is rotated behind them, from a whole block on.
 */
export function attendLatent(step: Step, x: Projected, spec: LatentSpec): Activation {
  const { heads, latent, rotaryDim, nope, low } = spec;
  const columns = low === null ? heads * (nope + rotaryDim) : low.rank;
  const kvAt = Math.ceil(columns / BLOCK_ROWS) * BLOCK_ROWS;
  const z = storeTokens(step, x, kvAt, spec);
  const q = low === null || z === null ? x : project(step, low.matrices, { z, eps: spec.eps }, { label: "q_b_proj" });
  const attended = attendPages(step, queriesOf(step, q, spec), spec);
  const whole = latent % BLOCK_COLS === 0 ? attended : padded(step, attended.slot, spec);
  return valuesOf(step, whole, spec);
}

/** Writes each row's latent and rotated key to its page; returns the latents of queries, where they have some. */
function storeTokens(step: Step, x: Projected, kvAt: number, spec: LatentSpec): Activation | null {
  const { recorder, kvType, rows, batch, aux } = step;
  const { latent, rotaryDim, low } = spec;
  const z = low === null ? null : newActivation(step, rows, low.rank, "q latents");
  const params = {
    x_stride: x.stride,
    kv_at: kvAt,
    latent,
    rotary_dim: rotaryDim,
    interleaved: spec.interleaved ? 1 : 0,
    kv_norm: spec.kvNorm.offset,
    eps: spec.eps,
    ...pageParams(step, spec),
    q_at: 0,
    q_norm: low?.norm.offset ?? NONE,
    z_stride: z?.shape.stride ?? 0,
    z_runs: z?.shape.runs ?? 0,
    z_sums: z?.shape.sums ?? NONE,
    z_squares: z?.shape.squares ?? NONE,
    zero: 0,
  };
  // What is not used is bound to something harmless.
  const unused = z === null ? recorder.slot(16, "no q latents") : z.slot;
  const buffers = { x: x.slot, rope: ropeOf(step, spec), aux, batch, kv: pagesOf(step, spec), z: unused };
  latentKv(plain(kvType)).launch(recorder, { buffers, params, grid: [z === null ? 1 : 2, rows, 1] }, "latents");
  return z;
}

/** Queries of the length of keys: (rows, heads · (latent + rotary_dim)). */
function queriesOf(step: Step, q: Projected, spec: LatentSpec): Projected {
  const { recorder, rows, batch, aux } = step;
  const { heads, latent, rotaryDim, nope, keys } = spec;
  const stride = heads * (latent + rotaryDim);
  const slot = recorder.slot(rows * stride * 4, "queries");
  const layout = layouts[keys.layout];
  const group_cols = layout.scaling === "none" ? BLOCK_COLS : keys.group;
  for (const shard of shardsOf(keys, heads)) {
    const params = {
      rows,
      row_runs: runCount(latent),
      groups: Math.ceil(latent / group_cols),
      group_cols,
      scale_type: scaleTypeCode(layout, keys),
      param_words: paramWords(layout, keys),
      table: keys.tableAt ?? 0,
      ...shard.params,
      nope,
      latent,
      rotary_dim: rotaryDim,
      interleaved: spec.interleaved ? 1 : 0,
      q_stride: q.stride,
      q_at: 0,
      out_stride: stride,
      sorted: keys.order === undefined ? 0 : 1,
    };
    const { words, scales } = shard;
    const order = keys.orderBuffer ?? words;
    const buffers = { words, scales, order, q: q.slot, rope: ropeOf(step, spec), aux, batch, out: slot };
    const m = rowsOf(step);
    const grid = [shard.heads, Math.ceil(rows / m), 1] as const;
    latentQuery(keys.layout, m).launch(recorder, { buffers, params, grid }, "q · keys");
  }
  return { slot, stride };
}

/** The weighted latents of all heads: an activation of rows · heads rows where a latent is whole runs, else without sums and padding. */
function attendPages(step: Step, q: Projected, spec: LatentSpec): Activation {
  const { recorder, kvType, rows, batch, aux, splits } = step;
  const { heads, latent, rotaryDim } = spec;
  const width = latent + rotaryDim;
  const whole = latent % BLOCK_COLS === 0;
  const out = newActivation(step, rows * heads, latent, "latents", whole);
  const units = unitsOf(heads, 1, LATENT_QUADS);
  const rowBytes = heads * splits * (latent + 2) * 4;
  const atOnce = rowsAtOnce(recorder.gpu, rows, rowBytes);
  const partials = recorder.slot(Math.max(atOnce * rowBytes, 16), "splits");
  const params = {
    heads,
    kv_heads: 1,
    head_dim: width,
    value_dim: latent,
    value_words: valueWords(kvType, latent),
    ...pageParams(step, spec),
    qkv_stride: q.stride,
    q_at: 0,
    q_stride: width,
    table_word: ROW.table + (step.groups[spec.layer] ?? 0),
    zero: 0,
    units,
    splits,
    sinks: NONE,
    out_stride: heads * latent,
    out_runs: heads * out.shape.runs,
    out_sums: whole ? out.shape.sums : NONE,
    gate_at: NONE,
    gate_stride: 0,
    scale: spec.scale,
    softcap: 0,
    window: NONE,
  };
  const kernel = latentAttention(
    plain(kvType),
    latentWidthFor(latent, rotaryDim),
    LATENT_QUERIES[queriesFor(recorder.gpu)],
  );
  for (let first_row = 0; first_row < rows; first_row += atOnce) {
    const count = Math.min(atOnce, rows - first_row);
    const launched = { ...params, first_row, end_row: first_row + count };
    const buffers = { qkv: q.slot, aux, batch, kv: pagesOf(step, spec), out: out.slot, partials };
    const grid = [units, count, Math.max(splits, 1)] as const;
    kernel.launch(recorder, { buffers, params: launched, grid }, "attention");
    if (splits > 0) {
      attentionReduce.launch(recorder, { buffers, params: launched, grid: [heads, count, 1] }, "attention splits");
    }
  }
  return out;
}

/** Latents that are no whole runs, as an activation. */
function padded(step: Step, x: Slot, { heads, latent }: LatentSpec): Activation {
  const rows = step.rows * heads;
  const out = newActivation(step, rows, latent, "latents");
  const { stride, runs, sums } = out.shape;
  const params = { cols: latent, stride, runs, sums };
  const grid = [Math.ceil(runs / PAD_RUNS), rows, 1] as const;
  padRows.launch(step.recorder, { buffers: { x, out: out.slot }, params, grid }, "pad");
  return out;
}

/** Values of all heads: (rows, heads · value_dim). */
function valuesOf(step: Step, weighted: Activation, { heads, valueDim, values }: LatentSpec): Activation {
  const { recorder, rows, aux } = step;
  const x = sortColumns(step, values, weighted);
  const out = newActivation(step, rows, heads * valueDim, "attention", false);
  for (const shard of shardsOf(values, heads)) {
    const params = {
      ...dotParams(values, x.shape, true),
      rows,
      heads,
      ...shard.params,
      value_dim: valueDim,
      out_stride: out.shape.stride,
    };
    const { words, scales } = shard;
    const m = rowsOf(step);
    const grid = [shard.heads * shard.params.head_blocks, Math.ceil(rows / m), 1] as const;
    latentValue(values.layout, m).launch(
      recorder,
      { buffers: { words, scales, x: x.slot, aux, out: out.slot }, params, grid },
      "values",
    );
  }
  return out;
}

/** Rows that a launch by head takes at once. */
function rowsOf({ rows, recorder }: Step): LatentRows {
  const [one, many] = LATENT_ROWS;
  return rows >= many && !recorder.gpu.off.has(rowsVariant(many)) ? many : one;
}

/** Shards of a matrix by head, none of which cuts one. */
function shardsOf(matrix: Matrix, heads: number) {
  const head_blocks = matrix.blocks / heads;
  return matrix.shards.map(({ words, scales, firstBlock, blocks }) => ({
    words,
    scales: scales ?? words,
    heads: blocks / head_blocks,
    params: { first_head: firstBlock / head_blocks, head_blocks },
  }));
}

/** A type that latents can have. Throws RangeError for another, which loading refuses. */
function plain(kvType: KvType): PlainKvType {
  const found = PLAIN_KV_TYPES.find((type) => type === kvType);
  if (found === undefined) throw new RangeError(`latents: kept as ${kvType}, expected ${PLAIN_KV_TYPES.join(" or ")}`);
  return found;
}

/** How a page holds the tokens' vectors. */
function pageParams({ kvType }: Step, { latent, rotaryDim }: LatentSpec) {
  const width = latent + rotaryDim;
  return { head_words: keyWords(kvType, width), page_words: pageWords(kvType, 1, width, 0) };
}

function pagesOf(step: Step, { layer }: LatentSpec): GPUBuffer {
  const kv = step.kv[layer];
  if (kv === undefined) throw new RangeError(`layer ${layer}: no pages`);
  return kv;
}

function ropeOf(step: Step, { layer, rope }: LatentSpec): GPUBuffer {
  const table = step.ropes[rope];
  if (table === undefined) throw new RangeError(`layer ${layer}: no rope table ${rope}`);
  return table;
}
