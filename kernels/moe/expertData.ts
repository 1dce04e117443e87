/** What the cases of experts share: shapes, random inputs, and a dense loop over experts in f64. */
import { activation, product, randomMatrix } from "../caseData.ts";
import { f32Bits } from "../formats/halves.ts";
import { BLOCK_ROWS, type LayoutName, paddedRows, type ScaleType } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { activationShape } from "../fragments/activation.ts";
import { Random } from "../testbed.ts";
import { type Gated, gatedPair } from "./gated.ts";
import { routeShape } from "./route.ts";

/** How tokens choose: at random, all the same experts, or never the last one. */
export type Choice = "any" | "same" | "not the last";

/** What varies between the cases. */
export interface ExpertShape {
  readonly layout: LayoutName;
  readonly group: number;
  readonly scaleType: ScaleType;
  /** Shared ones included. */
  readonly experts: number;
  readonly slots: number;
  readonly hidden: number;
  readonly inner: number;
  readonly rows: number;
  readonly choice: Choice;
  readonly gated: Gated;
  readonly bias: boolean;
  /** Whether a norm follows. */
  readonly normed: boolean;
  /** Experts a shard; all of them where it is as large. */
  readonly shard: number;
  readonly spread: number;
  readonly seed: number;
}

/** A small one. */
export const PLAIN_EXPERTS: ExpertShape = {
  layout: "f32",
  group: 32,
  scaleType: "f16",
  experts: 4,
  slots: 2,
  hidden: 32,
  inner: 32,
  rows: 1,
  choice: "any",
  gated: { activation: "silu" },
  bias: false,
  normed: true,
  shard: 4,
  spread: 1,
  seed: 1,
};

const at = (list: ArrayLike<number>, index: number) => list[index] ?? Number.NaN;

/** The experts of each row, one row after the other. */
export function chosenBy({ experts, slots, rows, choice }: ExpertShape, random: Random): number[] {
  const open = choice === "not the last" ? Math.max(experts - 1, slots) : experts;
  return Array.from({ length: rows }, () => {
    const ids = Array.from({ length: open }, (_, e) => e);
    if (choice !== "same") for (let i = ids.length - 1; i > 0; i--) swap(ids, i, random.below(i + 1));
    return ids.slice(0, slots);
  }).flat();
}

function swap(list: number[], i: number, j: number): void {
  [list[i], list[j]] = [list[j] ?? 0, list[i] ?? 0];
}

/** Words of a route as the router leaves it. */
export function routeWords(
  shape: ExpertShape,
  ids: readonly number[],
  weights: ArrayLike<number>,
  inverses: ArrayLike<number>,
) {
  const route = routeShape(shape.rows, shape.slots);
  const words = new Uint32Array(route.words);
  words.set(ids);
  words.set(Array.from(weights, f32Bits), route.weights);
  words.set(Array.from(inverses, f32Bits), route.inverses);
  return words;
}

/** Everything that a feed-forward reads. */
export function expertInputs(shape: ExpertShape) {
  const random = new Random(shape.seed);
  const { layout, group, scaleType, experts, slots, hidden, inner, rows, spread } = shape;
  const [blocks, pairs] = [paddedRows(hidden) / BLOCK_ROWS, paddedRows(inner) / BLOCK_ROWS];
  const gateUpRows = 2 * pairs * BLOCK_ROWS;
  const gateUp = randomMatrix(random, layouts[layout], experts * gateUpRows, hidden, group, scaleType);
  const down = randomMatrix(random, layouts[layout], experts * blocks * BLOCK_ROWS, inner, group, scaleType);
  const ids = chosenBy(shape, random);
  const weights = Float32Array.from({ length: rows * slots }, () => 0.1 + random.next());
  const x = random.floats(rows * hidden, spread);
  const inverses = Float32Array.from({ length: rows }, () => (0.5 + random.next()) / spread);
  const gateUpBias = random.floats(experts * gateUpRows);
  const downBias = random.floats(experts * blocks * BLOCK_ROWS);
  const norm = random.floats(blocks * BLOCK_ROWS);
  const z = activationShape(rows, hidden);
  const y = activation(rows, hidden, random.floats(rows * hidden, spread)).data.subarray(0, z.sums);
  const route = routeWords(shape, ids, weights, inverses);
  const aux = new Float32Array([...gateUpBias, ...downBias, ...norm]);
  return { gateUp, down, ids, weights, x, inverses, gateUpBias, downBias, norm, z, y, route, aux, blocks, pairs };
}
/** It. */
export type ExpertInputs = ReturnType<typeof expertInputs>;

/** y and z of a dense loop over the chosen experts, in f64: whole blocks, since padding between experts is not zero here. */
export function expertReference(shape: ExpertShape, from: ExpertInputs) {
  const { rows, slots, hidden, inner, bias, gated, normed } = shape;
  const [gateUpRows, downRows] = [2 * from.pairs * BLOCK_ROWS, from.blocks * BLOCK_ROWS];
  const sum = new Float64Array(rows * downRows);
  from.ids.forEach((expert, item) => {
    const row = Math.floor(item / slots);
    const w = from.gateUp.values.subarray(expert * gateUpRows * hidden, (expert + 1) * gateUpRows * hidden);
    const both = product(w, from.x.subarray(row * hidden, (row + 1) * hidden), 1, hidden, gateUpRows).map(
      (v, n) => v * at(from.inverses, row) + (bias ? at(from.gateUpBias, expert * gateUpRows + n) : 0),
    );
    const middle = Float64Array.from({ length: inner }, (_, n) => {
      const gate = Math.floor(n / BLOCK_ROWS) * 2 * BLOCK_ROWS + (n % BLOCK_ROWS);
      return gatedPair(at(both, gate), at(both, gate + BLOCK_ROWS), gated);
    });
    const v = from.down.values.subarray(expert * downRows * inner, (expert + 1) * downRows * inner);
    product(v, middle, 1, inner, downRows).forEach((value, n) => {
      const own = value + (bias ? at(from.downBias, expert * downRows + n) : 0);
      sum[row * downRows + n] = at(sum, row * downRows + n) + at(from.weights, item) * own;
    });
  });
  const y = sum.map((v, i) => v + at(from.y, i));
  return { y, z: y.map((v, i) => (normed ? v * at(from.norm, i % downRows) : v)) };
}
