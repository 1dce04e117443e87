/** Blocks in attention's place that keep a state of one size instead of keys and values: short convolutions, and the gated delta rule. */
import { paddedRows } from "../kernels/formats/layout.ts";
import { type Mixer, output } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import { type ConvolutionSpec, convolutionState, convolve } from "./ops/convolve.ts";
import { project } from "./ops/project.ts";
import { type DeltaSpec, deltaState, recur } from "./ops/recur.ts";
import type { Projection } from "./projection.ts";
import type { DeltaNetConfig, ShortConvConfig } from "./stateConfig.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** f32s of a sequence's state, such that the next one's begins at a whole vec4f. */
const wholeQuads = (words: number): number => Math.max(4, 4 * Math.ceil(words / 4));

/** A convolution over the hidden vector with a gate on both sides: out_proj(C · conv(B · x)), B, C and x from in_proj. 3 dispatches. */
export function shortConvolution(
  weights: WeightPlan,
  path: string,
  layer: number,
  config: ModelConfig,
  { taps, bias }: ShortConvConfig,
): Mixer {
  const { hidden_size: channels } = config;
  const projections = [0, 1, 2].map((part): Projection => {
    return { module: `${path}.in_proj`, rows: channels, slice: { first: part * channels, of: 3 * channels } };
  });
  const in_proj = weights.stacked(projections, channels);
  const inBias = weights.stackedBias(projections, bias);
  const stride = paddedRows(channels);
  const stateStride = wholeQuads(convolutionState(taps, stride));
  const spec: ConvolutionSpec = {
    layer,
    channels,
    taps,
    weight: weights.convolution(`${path}.conv.weight`, [channels], taps, { mlx: true }),
    bias: bias ? weights.vector(`${path}.conv.bias`, channels) : undefined,
    activation: "linear",
    columns: { before: 0, after: stride, x: 2 * stride },
    stateStride,
  };
  return {
    cache: { kind: "state", bytes: 4 * stateStride },
    inner: (step, x) => convolve(step, project(step, in_proj, x, { bias: inBias, label: "in_proj" }), spec),
    output: output(weights, { module: `${path}.out_proj` }, config, channels, bias),
  };
}

/** Linear attention by the gated delta rule, behind a convolution over its queries, keys and values. 4 dispatches. */
export function gatedDeltaNet(
  weights: WeightPlan,
  path: string,
  layer: number,
  config: ModelConfig,
  shape: DeltaNetConfig,
): Mixer {
  const { hidden_size, normEps: eps } = config;
  const { keyHeads, valueHeads, keyDim, valueDim, taps } = shape;
  const [keys, values] = [keyHeads * keyDim, valueHeads * valueDim];
  const projections = deltaProjections(path, shape);
  const in_proj = weights.stacked(projections, hidden_size);
  let column = 0;
  const [, k = 0, v = 0, z = 0, b = 0, a = 0] = projections.map(({ rows }) => {
    column += paddedRows(rows);
    return column - paddedRows(rows);
  });
  const conv = convolutionState(taps, z); // it sees all before z
  const stateStride = wholeQuads(conv + deltaState(shape));
  const convolution: ConvolutionSpec = {
    layer,
    channels: z,
    taps,
    weight: weights.convolution(`${path}.conv1d.weight`, [keys, keys, values], taps, { mlx: true }),
    activation: "silu",
    columns: { x: 0 },
    stateStride,
  };
  const delta: DeltaSpec = {
    ...shape,
    layer,
    aLog: weights.vector(`${path}.A_log`, valueHeads),
    dtBias: weights.vector(`${path}.dt_bias`, valueHeads),
    norm: weights.vector(`${path}.norm.weight`, valueDim),
    eps,
    columns: { k, v, z, b, a },
    stateStride,
    stateAt: conv,
  };
  return {
    cache: { kind: "state", bytes: 4 * stateStride },
    inner(step, x) {
      const projected = project(step, in_proj, x, { label: "in_proj" });
      return recur(step, convolve(step, projected, convolution), projected, delta);
    },
    output: output(weights, { module: `${path}.out_proj` }, config, values, false),
  };
}

/** q, k, v, z, b and a, which the checkpoint has key head by key head in two modules. */
function deltaProjections(
  path: string,
  { keyHeads, valueHeads, keyDim, valueDim }: DeltaNetConfig,
): readonly Projection[] {
  const group = valueHeads / keyHeads;
  const parts = (module: string, sizes: readonly number[]): Projection[] => {
    const period = sizes.reduce((sum, size) => sum + size, 0);
    let before = 0;
    return sizes.map((take) => {
      const slice = { first: before, take, period, of: keyHeads * period };
      before += take;
      return { module: `${path}.${module}`, rows: keyHeads * take, slice };
    });
  };
  return [
    ...parts("in_proj_qkvz", [keyDim, keyDim, group * valueDim, group * valueDim]),
    ...parts("in_proj_ba", [group, group]),
  ];
}
