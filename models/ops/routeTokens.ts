/** Norm, router and top-k: which experts each row goes to, and with what weights. */
import type { Slot } from "../../device/arena.ts";
import { NONE } from "../../kernels/kernel.ts";
import { type RouteShape, routeShape } from "../../kernels/moe/route.ts";
import {
  GROUP_SCORES,
  type GroupScore,
  gateRow,
  partParams,
  router,
  SCORES,
  type Score,
} from "../../kernels/moe/router.ts";
import type { Matrix } from "../matrix.ts";
import type { Normed, Step } from "../step.ts";
import type { Vector } from "../vectors.ts";
import { normParams } from "./normParams.ts";
import { sortColumns } from "./sortColumns.ts";

/** How a family routes. */
export interface Routing {
  readonly experts: number;
  readonly top_k: number;
  readonly score: Score;
  /** Whether the chosen weights are divided by their sum, and what it is at least. */
  readonly renormalize: { readonly least: number } | null;
  /** Multiplies the chosen weights. */
  readonly scaling: number;
  /** Experts come from the best of equal groups only. */
  readonly groups: { readonly count: number; readonly best: number; readonly score: GroupScore } | null;
}

/** A router's weights. */
export interface RouterWeights {
  readonly matrix: Matrix;
  /** Of the logits. */
  readonly bias: Vector | undefined;
  /** Added to scores for the choice alone. */
  readonly correction: Vector | undefined;
  /** Slots behind the chosen experts that every row has. */
  readonly shared: number;
  /** Whether a row of the matrix gates them. */
  readonly gated: boolean;
}

/** Experts, weights and 1 / rms of each row (kernels/moe/route.ts). */
export interface Route {
  readonly slot: Slot;
  readonly shape: RouteShape;
}

/** Routes the rows of a step. Where the step wants routes, their slot is kept and listed in it. */
export function routeTokens(step: Step, routing: Routing, weights: RouterWeights, { z, eps }: Normed): Route {
  const { experts, top_k, groups, renormalize } = routing;
  const { matrix, shared, gated } = weights;
  const x = sortColumns(step, matrix, z);
  const shape = routeShape(step.rows, top_k + shared);
  const slot = step.recorder.slot(shape.words * 4, "route", step.routes !== undefined);
  const [shard] = matrix.shards;
  if (shard === undefined || matrix.shards.length > 1)
    throw new RangeError(`${matrix.name}: lies in ${matrix.shards.length} shards, expected one`);
  const params = {
    ...partParams(matrix, gated ? gateRow(experts) + 1 : experts),
    ...normParams(eps, x),
    x_stride: x.shape.stride / 4,
    x_runs: x.shape.runs,
    experts,
    top_k,
    slots: shape.slots,
    gate_row: gated ? gateRow(experts) : NONE,
    score: SCORES.indexOf(routing.score),
    renormalize: renormalize === null ? 0 : 1,
    least_sum: renormalize?.least ?? 0,
    scaling: routing.scaling,
    bias: weights.bias?.offset ?? NONE,
    correction: weights.correction?.offset ?? NONE,
    n_group: groups?.count ?? 1,
    topk_group: groups?.best ?? 1,
    group_score: groups === null ? 0 : GROUP_SCORES.indexOf(groups.score),
    weights: shape.weights,
    inverses: shape.inverses,
  };
  const { words, scales } = shard;
  const buffers = { words, scales: scales ?? words, x: x.slot, aux: step.aux, route: slot };
  router(matrix.layout).launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "router");
  step.routes?.push({ slot, slots: shape.slots, top_k });
  return { slot, shape };
}
