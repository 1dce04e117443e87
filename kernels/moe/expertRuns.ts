/** A feed-forward of experts over given inputs, item by item or by tiles; and the case of it. */
import type { Recorder } from "../../device/program.ts";
import { activation, runSums } from "../caseData.ts";
import { layouts } from "../formats/layouts.ts";
import { activationShape } from "../fragments/activation.ts";
import { dotParams } from "../fragments/matmul.ts";
import { NONE } from "../kernel.ts";
import type { Case, Comparison, Guarded, Testbed } from "../testbed.ts";
import { expertDown } from "./expert_down.ts";
import { expertDownSum } from "./expert_down_sum.ts";
import { expertGateUp } from "./expert_gate_up.ts";
import { expertLists } from "./expert_lists.ts";
import { expertSum } from "./expert_sum.ts";
import { type ExpertInputs, type ExpertShape, expertInputs, expertReference } from "./expertData.ts";
import { gatedParams } from "./gated.ts";
import { listShape, routeShape } from "./route.ts";

/** Which way through: item by item and fused, or by tiles of the lists. */
export type ExpertPath = "fused" | "tiled";

const LIMIT = 1e-9; // exp of drivers is good to about 1e-5

/** Runs of a path: y (rows, stride) and the activation z. */
export async function runExperts(bed: Testbed, shape: ExpertShape, from: ExpertInputs, path: ExpertPath) {
  const prepared = prepare(bed, shape, from);
  await bed.submit((recorder) => (path === "fused" ? fused : tiled)(recorder, prepared));
  const { y, z } = prepared.buffers;
  return { y: await bed.f32(y), z: await bed.f32(z) };
}

/** What both ways need: where all of it lies, in which buffers. */
function prepare(bed: Testbed, shape: ExpertShape, from: ExpertInputs) {
  const { experts, slots, hidden, inner, rows } = shape;
  const { z } = from;
  const route = routeShape(rows, slots);
  const lists = listShape(route.items, experts);
  const act = activation(rows, hidden, from.x);
  const middle = activationShape(route.items, inner);
  const buffers = {
    x: bed.buffer(act.data),
    aux: bed.buffer(from.aux),
    route: bed.buffer(from.route),
    lists: bed.buffer(new Uint32Array(lists.words).fill(NONE)),
    middle: bed.output(middle.bytes / 4),
    items: bed.output(route.items * z.stride),
    y: bed.buffer(from.y),
    z: bed.output(z.bytes / 4),
  };
  const gateUps = shards(bed, shape, from.gateUp.packed);
  const downs = shards(bed, shape, from.down.packed);
  return { shape, from, route, lists, x: act.shape, middle, buffers, gateUps, downs };
}
type Prepared = ReturnType<typeof prepare>;

function fused(recorder: Recorder, prepared: Prepared): void {
  const { shape, from, route, buffers, downs } = prepared;
  gateUp(recorder, prepared, false);
  for (const { weights } of downs) {
    expertDownSum(shape.layout).launch(recorder, {
      buffers: { ...weights, x: buffers.middle, aux: buffers.aux, route: buffers.route, y: buffers.y, z: buffers.z },
      params: { ...downParams(prepared), ...residual(prepared), slots: shape.slots, weights: route.weights },
      grid: [from.blocks, shape.rows, 1],
    });
  }
}

function tiled(recorder: Recorder, prepared: Prepared): void {
  const { shape, from, route, lists, buffers, downs } = prepared;
  const { z, blocks } = from;
  expertLists.launch(recorder, {
    buffers,
    params: { items: route.items, experts: shape.experts, items_at: lists.itemsAt },
    grid: [1, 1, 1],
  });
  gateUp(recorder, prepared, true);
  for (const shard of downs) {
    expertDown(shape.layout).launch(recorder, {
      buffers: { ...shard.weights, x: buffers.middle, aux: buffers.aux, lists: buffers.lists, out: buffers.items },
      params: { ...downParams(prepared), ...shard.range, out_stride: z.stride / 4 },
      grid: [blocks, lists.tiles, 1],
    });
  }
  expertSum.launch(recorder, {
    buffers: { x: buffers.items, route: buffers.route, aux: buffers.aux, y: buffers.y, z: buffers.z },
    params: { ...residual(prepared), slots: shape.slots, weights: route.weights },
    grid: [Math.ceil(z.runs / 8), shape.rows, 1],
  });
}

/** Gate, up and activation, of each item or of each tile of them. */
function gateUp(recorder: Recorder, prepared: Prepared, isTiled: boolean): void {
  const { shape, from, route, lists, x, middle, buffers, gateUps } = prepared;
  for (const shard of gateUps) {
    expertGateUp(shape.layout, isTiled).launch(recorder, {
      buffers: { ...buffers, ...shard.weights, out: buffers.middle },
      params: {
        ...dotParams(stored(from.gateUp), x, true),
        ...gatedParams(shape.gated),
        ...shard.range,
        expert_blocks: 2 * from.pairs,
        bias: shape.bias ? 0 : NONE,
        slots: shape.slots,
        inverses: route.inverses,
        out_stride: middle.stride / 4,
        out_runs: middle.runs,
        out_sums: middle.sums,
      },
      grid: [from.pairs, isTiled ? lists.tiles : route.items, 1],
    });
  }
}

const stored = ({ layout: { name }, shape }: ExpertInputs["down"]) => ({ ...shape, layout: name });

const downParams = ({ shape, from, middle }: Prepared) => ({
  ...dotParams(stored(from.down), middle, true),
  bias: shape.bias ? from.gateUpBias.length : NONE,
  expert_blocks: from.blocks,
});

/** How what comes out is added to the residual stream. */
const residual = ({ shape, from: { z, gateUpBias, downBias } }: Prepared) => ({
  norm_weight: shape.normed ? gateUpBias.length + downBias.length : NONE,
  y_stride: z.stride / 4,
  y_runs: z.runs,
  z_sums: z.sums,
  z_squares: z.squares,
});

interface ShardBuffers {
  readonly weights: { readonly words: Guarded; readonly scales: Guarded };
  readonly range: { readonly first_expert: number; readonly end_expert: number };
}

/** The experts of a matrix in shards, each in buffers of its own. */
function shards(bed: Testbed, shape: ExpertShape, packed: { words: Uint32Array; scales: Uint32Array }) {
  const { experts, shard } = shape;
  const cut = (list: Uint32Array, first: number, end: number) =>
    bed.buffer(list.slice((list.length / experts) * first, (list.length / experts) * end));
  return Array.from({ length: Math.ceil(experts / shard) }, (_, i): ShardBuffers => {
    const [first, end] = [i * shard, Math.min((i + 1) * shard, experts)];
    const words = cut(packed.words, first, end);
    const scales = packed.scales.length === 0 ? words : cut(packed.scales, first, end);
    return { weights: { words, scales }, range: { first_expert: first, end_expert: end } };
  });
}

/** The case of a shape; its title names all of it. */
export function feedForwardCase(shape: ExpertShape, path: ExpertPath): Case {
  return {
    kernel: path === "fused" ? "expert_down_sum" : "expert_down",
    title: title(`experts ${path}`, shape),
    async run(bed) {
      const from = expertInputs(shape);
      const { z } = from;
      const { rows } = shape;
      const got = await runExperts(bed, shape, from, path);
      const want = expertReference(shape, from);
      const limit = LIMIT;
      return [
        { name: "y", got: got.y, want: want.y, limit },
        { name: "z", got: got.z.subarray(0, z.sums), want: want.z, limit },
        { name: "sums", got: got.z.subarray(z.sums, z.squares), want: runSums(want.z, rows, z.stride), limit },
        { name: "squares", got: got.z.subarray(z.squares), want: runSums(want.y, rows, z.stride, 2), limit },
      ] satisfies Comparison[];
    },
  };
}

function title(kernel: string, s: ExpertShape): string {
  const weights = layouts[s.layout].scaling === "none" ? s.layout : `${s.layout}/${s.group}/${s.scaleType}`;
  const flags = [
    s.gated.activation,
    s.bias && "bias",
    s.normed && "norm",
    s.shard < s.experts && `shard=${s.shard}`,
    s.choice !== "any" && s.choice,
    s.spread > 1 && `spread=${s.spread}`,
  ].filter(Boolean);
  const sizes = `E=${s.experts} slots=${s.slots} hidden=${s.hidden} inner=${s.inner} rows=${s.rows}`;
  return `${kernel} ${weights} ${sizes} ${flags.join(",")} seed=${s.seed}`;
}
