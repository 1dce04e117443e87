/** A short causal convolution over the tokens of each sequence, with the state that it keeps of them. */
import type { Slot } from "../../device/arena.ts";
import { type Activation as ActivationName, activationCode } from "../../kernels/fragments/act.ts";
import { NONE } from "../../kernels/kernel.ts";
import { shortConv } from "../../kernels/state/short_conv.ts";
import { type Activation, newActivation, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";

/** What a convolution is, besides the projection before it. */
export interface ConvolutionSpec {
  /** Index of the layer's states in `step.kv`. */
  readonly layer: number;
  readonly channels: number;
  /** Tokens that it sees, the row's own included. */
  readonly taps: number;
  /** (taps, stride): what `WeightPlan.convolution` returned. */
  readonly weight: Vector;
  /** (channels). */
  readonly bias?: Vector | undefined;
  readonly activation: ActivationName;
  /** Columns of the projection: what goes in, and the factors before and behind, where there are some. */
  readonly columns: { readonly x: number; readonly before?: number; readonly after?: number };
  /** f32s that a sequence's state has, of which the convolution's come first. */
  readonly stateStride: number;
}

/** f32s of a sequence's state for a convolution over activations of `stride` columns. */
export const convolutionState = (taps: number, stride: number): number => (taps - 1) * stride;

/** after · act(convolution of (before · x)): (rows, channels). */
export function convolve(
  step: Step,
  x: { readonly slot: Slot; readonly stride: number },
  spec: ConvolutionSpec,
): Activation {
  const state = step.kv[spec.layer];
  if (state === undefined) throw new RangeError(`layer ${spec.layer}: no states`);
  const out = newActivation(step, step.rows, spec.channels, "convolution");
  const { stride, runs, sums } = out.shape;
  const quads = (column: number | undefined) => (column === undefined ? NONE : column / 4);
  const { columns, weight, bias } = spec;
  const params = {
    rows: step.rows,
    taps: spec.taps,
    activation: activationCode(spec.activation),
    x_stride: x.stride / 4,
    x_at: columns.x / 4,
    before: quads(columns.before),
    after: quads(columns.after),
    weight: weight.offset / 4,
    bias: quads(bias?.offset),
    state_stride: spec.stateStride / 4,
    stride,
    runs,
    sums,
  };
  const buffers = { x: x.slot, aux: step.aux, batch: step.batch, state, out: out.slot };
  shortConv.launch(step.recorder, { buffers, params, grid: [runs, step.rows, 1] }, "conv");
  return out;
}
