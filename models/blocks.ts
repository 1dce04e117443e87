/** Blocks that families share, named and nested as in the reference implementations. */
import { HEAD_DIMS } from "../kernels/fragments/batch.ts";
import type { ModelConfig } from "./config.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { Matrix } from "./matrix.ts";
import type { CacheDeclaration } from "./model.ts";
import type { Mixture } from "./moe.ts";
import { activateRows } from "./ops/activateRows.ts";
import { addToResidual } from "./ops/addToResidual.ts";
import { attend } from "./ops/attend.ts";
import { type AttentionSpec, type HeadNorm, stackedColumns } from "./ops/attentionSpec.ts";
import { gateUp } from "./ops/gateUp.ts";
import { addNormed, normed } from "./ops/norm.ts";
import { project } from "./ops/project.ts";
import type { Projection } from "./projection.ts";
import type { Activation, Norm, Normed, Residual, Step } from "./step.ts";
import type { Vector, VectorOptions } from "./vectors.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** The last projection of a block: what it gives is added to the residual stream. */
export interface Output {
  readonly matrix: Matrix;
  readonly bias: Vector | undefined;
  readonly label: string;
}

/** A block: what it computes of the normed residual stream, and the projection back. */
export interface Block {
  inner(step: Step, x: Normed): Activation;
  readonly output: Output;
}

/** A block that looks at past tokens: attention, or what a layer has in its place. */
export interface Mixer extends Block {
  readonly cache: CacheDeclaration;
}

/** A layer: the norm that it reads the residual stream through, null: none; and what it adds, up to the norm that follows. */
export interface Layer {
  readonly norm: Norm | null;
  readonly cache: CacheDeclaration;
  run(step: Step, x: Residual, next: Norm | null): Residual;
}

/** Where heads lie in the rows of one projection. */
type Columns = NonNullable<AttentionSpec["columns"]>;

const MAX_HEAD_DIM = Math.max(...HEAD_DIMS);

/** An RMS norm over the hidden vector. */
export function rmsNorm(weights: WeightPlan, path: string, config: ModelConfig, options: VectorOptions = {}): Norm {
  return { kind: "rms", weight: weights.vector(`${path}.weight`, config.hidden_size, options), eps: streamEps(config) };
}

/** The eps of a norm of the residual stream, which is kept divided by the residual multiplier: a norm notices by its eps alone. */
const streamEps = ({ normEps, residualMultiplier: m }: ModelConfig): number => normEps / m ** 2;

/** A LayerNorm over the hidden vector; `add` is to its weight. */
export function layerNorm(
  weights: WeightPlan,
  path: string,
  config: ModelConfig,
  { bias = true, add = 0 }: { readonly bias?: boolean; readonly add?: number } = {},
): Norm {
  const weight = weights.vector(`${path}.weight`, config.hidden_size, { add });
  const shift = bias ? weights.vector(`${path}.bias`, config.hidden_size) : undefined;
  return { kind: "layer", weight, bias: shift, eps: streamEps(config) };
}

/** An RMS norm of each head's query and key, by their modules; `add` is to its weights. */
export function headNorms(
  weights: WeightPlan,
  q: string,
  k: string,
  { head_dim, normEps: eps }: ModelConfig,
  add = 0,
): HeadNorm {
  const weight = (module: string) => weights.vector(`${module}.weight`, head_dim, { add });
  return { over: "head", kind: "rms", q: weight(q), k: weight(k), eps };
}

/** What families' attention differs in; left out: Llama's. */
export interface AttentionOptions {
  /** The projection that holds q, k and v, where they are not `q_proj`, `k_proj` and `v_proj`, and where heads lie in its rows. */
  readonly fused?: { readonly projection: Omit<Projection, "rows">; readonly columns: Columns };
  /** The projection back, where it is not `o_proj`. */
  readonly output?: Omit<Projection, "rows">;
  /** Whether each head of `q_proj` has behind its query the gate of what comes out. */
  readonly gated?: true;
  /** Norms of q and k, and how pairs turn. */
  readonly spec?: Partial<AttentionSpec>;
}

/** Self-attention with the layer's rope, or none: q, k and v in one matmul. */
export function attention(
  weights: WeightPlan,
  path: string,
  layer: number,
  config: ModelConfig,
  options: AttentionOptions = {},
): Mixer {
  const { hidden_size, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim, biases } = config;
  if (headDim > MAX_HEAD_DIM) {
    throw new UnsupportedModelError(
      `config.json: head_dim is ${headDim}, expected at most ${MAX_HEAD_DIM}, which the attention kernels hold`,
    );
  }
  const { fused, gated = false } = options;
  const projections: readonly Projection[] =
    fused !== undefined
      ? [{ ...fused.projection, rows: (heads + 2 * kvHeads) * headDim }]
      : [
          { module: `${path}.q_proj`, rows: heads * headDim * (gated ? 2 : 1) },
          { module: `${path}.k_proj`, rows: kvHeads * headDim },
          { module: `${path}.v_proj`, rows: kvHeads * headDim },
        ];
  const qkv_proj = weights.stacked(projections, hidden_size);
  const bias = weights.stackedBias(projections, biases.qkv);
  const rope = config.layerRopes[layer] ?? null;
  const spec: AttentionSpec = {
    layer,
    heads,
    kvHeads,
    headDim,
    rope: rope ?? 0,
    rotaryDim: rope === null ? 0 : (config.ropes[rope]?.rotary_dim ?? Number.NaN),
    scale: config.attentionScale / (config.scaledByLayer ? layer + 1 : 1),
    window: config.windows[layer] ?? null,
    ...(config.attentionSoftcap === null ? {} : { softcap: config.attentionSoftcap }),
    ...(fused === undefined ? {} : { columns: fused.columns }),
    ...(gated ? { columns: stackedColumns({ heads, kvHeads, headDim }, true) } : {}),
    ...options.spec,
  };
  return {
    cache: { kind: "pages", kvHeads, headDim, window: spec.window },
    inner: (step, x) => attend(step, project(step, qkv_proj, x, { bias, label: "qkv_proj" }), spec),
    output: output(weights, options.output ?? { module: `${path}.o_proj` }, config, heads * headDim, biases.o),
  };
}

/** Where q, k and v of one projection follow each other, all heads of each together. */
export function columnsInARow({
  num_attention_heads: heads,
  num_key_value_heads: kvHeads,
  head_dim: stride,
}: ModelConfig): Columns {
  return { q: { at: 0, stride }, k: { at: heads * stride, stride }, v: { at: (heads + kvHeads) * stride, stride } };
}

/** What families' gated MLPs differ in; left out: Llama's. */
export interface GatedMlpOptions {
  /** The module that holds gate and behind it up, where they are not modules of their own. */
  readonly fused?: string;
  /** Names of gate, up and down, where they are not `gate_proj`, `up_proj` and `down_proj`. */
  readonly names?: readonly [gate: string, up: string, down: string];
}

/** Gated MLP: down(act(gate(x)) · up(x)). */
export function gatedMlp(
  weights: WeightPlan,
  path: string,
  config: ModelConfig,
  { fused, names = ["gate_proj", "up_proj", "down_proj"] }: GatedMlpOptions = {},
): Block {
  const { hidden_size, intermediate_size: rows, biases, hidden_act: activation } = config;
  const [, , down] = names;
  const [gate, up] = names.slice(0, 2).map((name, i): Projection => {
    if (fused === undefined) return { module: `${path}.${name}`, rows };
    return { module: fused, rows, slice: { first: i * rows, of: 2 * rows } };
  }) as [Projection, Projection]; // two names, two projections
  const gate_up_proj = weights.interleaved(gate, up, rows, hidden_size);
  const bias = weights.interleavedBias(gate, up, rows, biases.mlp);
  return {
    inner: (step, x) => gateUp(step, gate_up_proj, x, { activation, bias, label: "gate_up_proj" }),
    output: output(weights, { module: `${path}.${down}` }, config, rows, biases.mlp),
  };
}

/** MLP without a gate: down(act(up(x))). */
export function plainMlp(
  weights: WeightPlan,
  config: ModelConfig,
  up: Omit<Projection, "rows">,
  down: Omit<Projection, "rows">,
): Block {
  const { hidden_size, intermediate_size: rows, biases, hidden_act } = config;
  const projection = { ...up, rows };
  const matrices = weights.stacked([projection], hidden_size);
  const bias = weights.stackedBias([projection], biases.mlp);
  const label = nameOf(up);
  return {
    inner: (step, x) => activateRows(step, project(step, matrices, x, { bias, label }), rows, hidden_act),
    output: output(weights, down, config, rows, biases.mlp),
  };
}

/** A projection from `cols` columns back to the residual stream. */
export function output(
  weights: WeightPlan,
  { module, ...form }: Omit<Projection, "rows">,
  { hidden_size: rows }: ModelConfig,
  cols: number,
  bias: boolean,
): Output {
  return {
    matrix: weights.matrix(module, rows, cols, form),
    bias: weights.stackedBias([{ module, rows, ...form }], bias),
    label: nameOf({ module }),
  };
}

const nameOf = ({ module }: Pick<Projection, "module">): string => module.split(".").at(-1) ?? module;

/**
 * One block after the other, each behind its norm: x += attention(norm(x)), then x += mlp(norm(x)). 5 dispatches with a gated MLP, 6 without;
 * 3 + a mixture's with experts; one more for each LayerNorm.
 */
export function sequential(
  input_layernorm: Norm,
  attention: Mixer,
  post_attention_layernorm: Norm,
  mlp: Block | Mixture,
): Layer {
  return {
    norm: input_layernorm,
    cache: attention.cache,
    run(step, x, next) {
      const mid = addToResidual(step, attention.output, attention.inner(step, x), x, post_attention_layernorm);
      if ("add" in mlp) return mlp.add(step, mid, next);
      return addToResidual(step, mlp.output, mlp.inner(step, mid), mid, next);
    },
  };
}

/**
 * Both blocks of one residual stream: x += attention(norm(x)) + mlp(norm(x)), where the MLP may have a norm of its own. Dispatches as
 * `sequential`, less one where both read one LayerNorm.
 */
export function parallel(input_layernorm: Norm, attention: Mixer, mlp: Block, own?: Norm): Layer {
  return {
    norm: input_layernorm,
    cache: attention.cache,
    run(step, x, next) {
      const other = own === undefined ? x : normed(step, x, own);
      const [attended, inner] = [attention.inner(step, x), mlp.inner(step, other)];
      addToResidual(step, attention.output, attended, x, null);
      return addToResidual(step, mlp.output, inner, x, next);
    },
  };
}

/** A block between its norms: x += after(block(before(x))), where `before` may be none. */
export interface Sandwich<Inner extends Block = Block> {
  readonly before: Norm | null;
  readonly block: Inner;
  readonly after: Norm;
}

/** Attention and MLP with norms behind them. 7 dispatches with a gated MLP. */
export function sandwiched(attention: Sandwich<Mixer>, mlp: Sandwich): Layer {
  const add = (step: Step, { block, after }: Sandwich, x: Residual, next: Norm | null) => {
    const { matrix, bias, label } = block.output;
    const back = project(step, [matrix], { z: block.inner(step, x), eps: null }, { bias, label });
    return addNormed(step, back, x, after, next);
  };
  return {
    norm: attention.before,
    cache: attention.block.cache,
    run: (step, x, next) => add(step, mlp, add(step, attention, x, mlp.before), next),
  };
}
