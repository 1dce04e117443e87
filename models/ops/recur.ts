/** The gated delta rule over the tokens of each sequence, with the state that it keeps of them, and the gated norm behind it. */
import type { Slot } from "../../device/arena.ts";
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import { NONE } from "../../kernels/kernel.ts";
import { deltaRule } from "../../kernels/state/delta_rule.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";

/** How many heads there are, and how large. */
export interface DeltaShape {
  readonly keyHeads: number;
  /** A multiple of keyHeads. */
  readonly valueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/** What the recurrence is, besides its projections. */
export interface DeltaSpec extends DeltaShape {
  /** Index of the layer's states in `step.kv`. */
  readonly layer: number;
  /** (valueHeads) each. */
  readonly aLog: Vector;
  readonly dtBias: Vector;
  /** Of the norm: (valueDim). */
  readonly norm: Vector;
  readonly eps: number;
  /** Columns of what was convolved, whose queries come first, and of the projection. */
  readonly columns: {
    readonly k: number;
    readonly v: number;
    readonly z: number;
    readonly b: number;
    readonly a: number;
  };
  /** f32s that a sequence's state has, and where those of the recurrence begin. */
  readonly stateStride: number;
  readonly stateAt: number;
}

/** f32s of a sequence's state. */
export const deltaState = ({ valueHeads, keyDim, valueDim }: DeltaShape): number => valueHeads * keyDim * valueDim;

/** norm(Sᵀ q) · silu(z) of each head: (rows, valueHeads · valueDim). `convolved` holds q, k and v, `projected` z, b and a. */
export function recur(
  step: Step,
  convolved: Activation,
  projected: { readonly slot: Slot; readonly stride: number },
  spec: DeltaSpec,
): Activation {
  const { valueHeads: heads, keyDim, valueDim, columns } = spec;
  const state = step.kv[spec.layer];
  if (state === undefined) throw new RangeError(`layer ${spec.layer}: no states`);
  const whole = valueDim % BLOCK_COLS === 0; // then each head's sums are its own
  const out = newActivation(step, step.rows, heads * valueDim, "delta rule", whole);
  const params = {
    rows: step.rows,
    heads,
    group: heads / spec.keyHeads,
    key_dim: keyDim,
    value_dim: valueDim,
    x_stride: convolved.shape.stride,
    k_at: columns.k,
    v_at: columns.v,
    p_stride: projected.stride,
    z_at: columns.z,
    b_at: columns.b,
    a_at: columns.a,
    a_log: spec.aLog.offset,
    dt_bias: spec.dtBias.offset,
    weight: spec.norm.offset,
    scale: 1 / Math.sqrt(keyDim),
    eps: spec.eps,
    state_stride: spec.stateStride,
    state_at: spec.stateAt,
    out_stride: out.shape.stride,
    out_runs: out.shape.runs,
    out_sums: whole ? out.shape.sums : NONE,
  };
  const buffers = { x: convolved.slot, p: projected.slot, aux: step.aux, batch: step.batch, state, out: out.slot };
  deltaRule.launch(step.recorder, { buffers, params, grid: [heads, step.rows, 1] }, "delta rule");
  return out;
}
