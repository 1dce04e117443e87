/** What attention of one layer is, besides its projections: what a family says and `attend` does. */
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import type { Vector } from "../vectors.ts";

/** Where the heads of one projection lie in a row of qkv: head h begins at column at + h · stride. */
export interface HeadColumns {
  readonly at: number;
  readonly stride: number;
}

/** A norm of each head's query and key; without weights where a family has none. */
export interface HeadNorm {
  readonly over: "head";
  /** RMS, or mean and variance. */
  readonly kind: "rms" | "layer";
  /** (head_dim), or (heads, head_dim) and (kv_heads, head_dim) where `weightsEachHead`. */
  readonly q?: Vector;
  readonly k?: Vector;
  readonly weightsEachHead?: boolean;
  /** (head_dim) each, added to what has weights. */
  readonly qBias?: Vector;
  readonly kBias?: Vector;
  /** Behind rope; else before it. */
  readonly afterRope?: boolean;
  readonly eps: number;
}

/** An RMS norm over all heads of q, and one over all of k, before rope: a dispatch of its own. */
export interface ProjectionNorm {
  readonly over: "projection";
  /** (heads · head_dim) and (kv_heads · head_dim). */
  readonly q: Vector;
  readonly k: Vector;
  readonly eps: number;
}

/** All that `attend` asks. */
export interface AttentionSpec {
  /** Index of the layer's pages in `step.kv`. */
  readonly layer: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Of queries and keys: even, at most 256. */
  readonly headDim: number;
  /** Of values and of what comes out, where it is not head_dim: even, at most 256. */
  readonly valueDim?: number;
  /** Which table of rotations. */
  readonly rope: number;
  /** Components of a head that are rotated; 0: none. */
  readonly rotaryDim: number;
  readonly interleaved?: boolean;
  readonly scale: number;
  /** Keys that a row sees, its own included; null for all. */
  readonly window: number | null;
  readonly softcap?: number;
  readonly qkNorm?: HeadNorm | ProjectionNorm;
  /** Queries, keys and values are clamped to ±clip: behind a norm, before rope. */
  readonly clip?: number;
  /** (heads) logits of sinks. */
  readonly sinks?: Vector;
  /**
   * Where q, k and v lie in qkv: `stackedColumns` where it is absent. A `gate` of value_dim columns a head multiplies what comes out
   * by its sigmoid.
   */
  readonly columns?: {
    readonly q: HeadColumns;
    readonly k: HeadColumns;
    readonly v: HeadColumns;
    readonly gate?: HeadColumns;
  };
}

/**
 * Columns of q_proj, k_proj and v_proj stacked as `WeightPlan.stacked` does: each from a whole block of rows on. With `gated`, each
 * head of q_proj has its gate's columns behind its query's.
 */
export function stackedColumns(
  { heads, kvHeads, headDim, valueDim = headDim }: Pick<AttentionSpec, "heads" | "kvHeads" | "headDim" | "valueDim">,
  gated = false,
): NonNullable<AttentionSpec["columns"]> {
  const padded = (rows: number) => Math.ceil(rows / BLOCK_ROWS) * BLOCK_ROWS;
  const stride = headDim + (gated ? valueDim : 0);
  const k = padded(heads * stride);
  return {
    q: { at: 0, stride },
    k: { at: k, stride: headDim },
    v: { at: k + padded(kvHeads * headDim), stride: valueDim },
    ...(gated ? { gate: { at: headDim, stride } } : {}),
  };
}
