/** The chosen experts of each row, and their weighted sum into the residual stream. */
import type { Slot } from "../../device/arena.ts";
import { activationShape } from "../../kernels/fragments/activation.ts";
import { dotParams } from "../../kernels/fragments/matmul.ts";
import { NONE } from "../../kernels/kernel.ts";
import { expertDown } from "../../kernels/moe/expert_down.ts";
import { expertDownSum } from "../../kernels/moe/expert_down_sum.ts";
import { expertGateUp } from "../../kernels/moe/expert_gate_up.ts";
import { expertLists } from "../../kernels/moe/expert_lists.ts";
import { expertSum } from "../../kernels/moe/expert_sum.ts";
import { type Gated, gatedParams } from "../../kernels/moe/gated.ts";
import { listShape } from "../../kernels/moe/route.ts";
import type { Matrix, Shard } from "../matrix.ts";
import { type Activation, type Norm, newActivation, type Residual, type Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { throughNorm } from "./norm.ts";
import type { Route } from "./routeTokens.ts";

/** Experts of equal size, the shared ones last, each matrix a stack. */
export interface Experts {
  readonly count: number;
  readonly inner: number;
  readonly gated: Gated;
  readonly gateUp: Matrix;
  readonly gateUpBias: Vector | undefined;
  readonly down: Matrix;
  readonly downBias: Vector | undefined;
}

/** Rows up to which an expert's weights are read once an item: few rows seldom meet in an expert. */
const ITEM_ROWS = 8;

/**
 * y += Σ weight · expert(x) in place, and what the matmul behind the next norm reads. 2 dispatches for few rows, 4 for more or where a
 * stack lies in several shards: the bits are the same.
 */
export function runExperts(step: Step, experts: Experts, route: Route, x: Residual, next: Norm | null): Residual {
  const { recorder, rows } = step;
  const fused = next?.kind === "rms" ? next : null;
  const z = newActivation(step, rows, x.z.shape.cols, "z");
  const residual = {
    norm_weight: fused?.weight.offset ?? NONE,
    y_stride: z.shape.stride / 4,
    y_runs: z.shape.runs,
    z_sums: z.shape.sums,
    z_squares: z.shape.squares,
    slots: route.shape.slots,
    weights: route.shape.weights,
  };
  const few = rows <= ITEM_ROWS && experts.down.shards.length === 1;
  const lists = few ? undefined : sortItems(step, experts.count, route);
  const inner = gateUpItems(step, experts, route, x.z, lists);
  if (lists === undefined) {
    const [shard] = experts.down.shards;
    if (shard === undefined) throw new RangeError(`${experts.down.name}: lies in no buffer, expected to be loaded`);
    const params = {
      ...dotParams(experts.down, inner.shape, true),
      ...residual,
      bias: experts.downBias?.offset ?? NONE,
      expert_blocks: experts.down.unit,
    };
    const buffers = { ...weightsOf(shard), x: inner.slot, aux: step.aux, route: route.slot, y: x.y, z: z.slot };
    const grid = [experts.down.unit, rows, 1] as const;
    expertDownSum(experts.down.layout).launch(recorder, { buffers, params, grid }, "experts down");
  } else {
    const items = downItems(step, experts, inner, z.shape.stride, lists);
    const buffers = { x: items, route: route.slot, aux: step.aux, y: x.y, z: z.slot };
    const grid = [Math.ceil(z.shape.runs / 8), rows, 1] as const;
    expertSum.launch(recorder, { buffers, params: residual, grid }, "experts sum");
  }
  return throughNorm(step, { y: x.y, z, eps: fused?.eps ?? null }, next);
}

interface Lists {
  readonly slot: Slot;
  readonly tiles: number;
}

function sortItems({ recorder }: Step, experts: number, { slot: route, shape: { items } }: Route): Lists {
  const { tiles, itemsAt, words } = listShape(items, experts);
  const slot = recorder.slot(words * 4, "expert lists");
  const params = { items, experts, items_at: itemsAt };
  expertLists.launch(recorder, { buffers: { route, lists: slot }, params, grid: [1, 1, 1] }, "expert lists");
  return { slot, tiles };
}

const weightsOf = ({ words, scales }: Shard) => ({ words, scales: scales ?? words });

/** Params of the experts in a shard. */
const rangeOf = ({ unit }: Matrix, { firstBlock, blocks }: Shard) => ({
  first_expert: firstBlock / unit,
  end_expert: (firstBlock + blocks) / unit,
  expert_blocks: unit,
});

/** act(gate) · up of each item. */
function gateUpItems(
  step: Step,
  { gateUp, gateUpBias, inner, gated }: Experts,
  { slot: route, shape }: Route,
  x: Activation,
  lists: Lists | undefined,
): Activation {
  const out = activationShape(shape.items, inner);
  const slot = step.recorder.slot(out.bytes, "experts");
  for (const shard of gateUp.shards) {
    const params = {
      ...dotParams(gateUp, x.shape, x.sums),
      ...gatedParams(gated),
      ...rangeOf(gateUp, shard),
      bias: gateUpBias?.offset ?? NONE,
      slots: shape.slots,
      inverses: shape.inverses,
      out_stride: out.stride / 4,
      out_runs: out.runs,
      out_sums: out.sums,
    };
    const buffers = { ...weightsOf(shard), x: x.slot, aux: step.aux, route, lists: lists?.slot ?? route, out: slot };
    const grid = [gateUp.unit / 2, lists?.tiles ?? shape.items, 1] as const;
    expertGateUp(gateUp.layout, lists !== undefined).launch(
      step.recorder,
      { buffers, params, grid },
      "experts gate_up",
    );
  }
  return { slot, shape: out, sums: true };
}

/** The way back of each item: f32 (items, stride). */
function downItems(step: Step, { down, downBias }: Experts, x: Activation, stride: number, lists: Lists): Slot {
  const slot = step.recorder.slot(x.shape.rows * stride * 4, "expert items");
  for (const shard of down.shards) {
    const params = {
      ...dotParams(down, x.shape, x.sums),
      ...rangeOf(down, shard),
      bias: downBias?.offset ?? NONE,
      out_stride: stride / 4,
    };
    const buffers = { ...weightsOf(shard), x: x.slot, aux: step.aux, lists: lists.slot, out: slot };
    const grid = [down.unit, lists.tiles, 1] as const;
    expertDown(down.layout).launch(step.recorder, { buffers, params, grid }, "experts down");
  }
  return slot;
}
