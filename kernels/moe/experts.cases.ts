/** Cases of the experts' kernels: whole feed-forwards in every path, against a dense loop over experts in f64, and each with the same bits. */
import { activation, runSums } from "../caseData.ts";
import type { LayoutName } from "../formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "../formats/layouts.ts";
import { activationShape } from "../fragments/activation.ts";
import { dotParams } from "../fragments/matmul.ts";
import { NONE } from "../kernel.ts";
import { bits } from "../sameWords.ts";
import { type Case, type Comparison, type Guarded, Random, type Testbed } from "../testbed.ts";
import { expertDown } from "./expert_down.ts";
import { expertDownSum } from "./expert_down_sum.ts";
import { expertGateUp } from "./expert_gate_up.ts";
import { expertListsCase } from "./expert_lists.cases.ts";
import { expertLists } from "./expert_lists.ts";
import { expertSum } from "./expert_sum.ts";
import {
  type ExpertInputs,
  type ExpertShape,
  expertInputs,
  expertReference,
  PLAIN_EXPERTS,
  routeWords,
} from "./expertData.ts";
import { gatedParams } from "./gated.ts";
import { listShape, routeShape } from "./route.ts";

/** Which way through: item by item and fused, or by tiles of the lists. */
type ExpertPath = "fused" | "tiled";

const LIMIT = 1e-9; // exp of drivers is good to about 1e-5
/** Runs of a path: y (rows, stride) and the activation z. */
async function runExperts(bed: Testbed, shape: ExpertShape, from: ExpertInputs, path: ExpertPath) {
  const { layout, experts, slots, hidden, inner, rows, gated, bias, normed } = shape;
  const { z, blocks, pairs } = from;
  const tiled = path === "tiled";
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
  const { x, aux } = buffers;
  const residual = {
    norm_weight: normed ? from.gateUpBias.length + from.downBias.length : NONE,
    y_stride: z.stride / 4,
    y_runs: z.runs,
    z_sums: z.sums,
    z_squares: z.squares,
  };
  const stored = ({ layout: { name }, shape }: ExpertInputs["down"]) => ({ ...shape, layout: name });
  const gateUps = shards(bed, shape, from.gateUp.packed);
  const downs = shards(bed, shape, from.down.packed);
  await bed.submit((recorder) => {
    if (tiled) {
      const params = { items: route.items, experts, items_at: lists.itemsAt };
      expertLists.launch(recorder, {
        buffers: { route: buffers.route, lists: buffers.lists },
        params,
        grid: [1, 1, 1],
      });
    }
    const high = tiled ? lists.tiles : route.items;
    for (const shard of gateUps) {
      expertGateUp(layout, tiled).launch(recorder, {
        buffers: { ...shard.weights, x, aux, route: buffers.route, lists: buffers.lists, out: buffers.middle },
        params: {
          ...dotParams(stored(from.gateUp), act.shape, true),
          ...gatedParams(gated),
          ...shard.range,
          expert_blocks: 2 * pairs,
          bias: bias ? 0 : NONE,
          slots,
          inverses: route.inverses,
          out_stride: middle.stride / 4,
          out_runs: middle.runs,
          out_sums: middle.sums,
        },
        grid: [pairs, high, 1],
      });
    }
    const inner2 = dotParams(stored(from.down), middle, true);
    const downBias = bias ? from.gateUpBias.length : NONE;
    if (!tiled) {
      for (const { weights } of downs) {
        expertDownSum(layout).launch(recorder, {
          buffers: { ...weights, x: buffers.middle, aux, route: buffers.route, y: buffers.y, z: buffers.z },
          params: { ...inner2, ...residual, bias: downBias, expert_blocks: blocks, slots, weights: route.weights },
          grid: [blocks, rows, 1],
        });
      }
      return;
    }
    for (const shard of downs) {
      expertDown(layout).launch(recorder, {
        buffers: { ...shard.weights, x: buffers.middle, aux, lists: buffers.lists, out: buffers.items },
        params: { ...inner2, ...shard.range, expert_blocks: blocks, bias: downBias, out_stride: z.stride / 4 },
        grid: [blocks, high, 1],
      });
    }
    expertSum.launch(recorder, {
      buffers: { x: buffers.items, route: buffers.route, aux, y: buffers.y, z: buffers.z },
      params: { ...residual, slots, weights: route.weights },
      grid: [Math.ceil(z.runs / 8), rows, 1],
    });
  });
  return { y: await bed.f32(buffers.y), z: await bed.f32(buffers.z) };
}

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

function feedForwardCase(shape: ExpertShape, path: ExpertPath): Case {
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

function randomShape(layout: LayoutName, path: ExpertPath, seed: number): ExpertShape {
  const random = new Random(seed * 4001);
  const group = random.pick([32, 64]);
  const size = () => (layouts[layout].scaling === "none" ? 1 + random.below(100) : group * (1 + random.below(2)));
  const experts = random.pick([1, 3, 5, 7, 8, 9]);
  const clamped = { activation: "clamped swiglu", alpha: 1.702, limit: random.pick([0.5, 7]) } as const;
  return {
    layout,
    group,
    scaleType: random.pick(["f16", "bf16", "f32"] as const),
    experts,
    slots: 1 + random.below(Math.min(experts, 4)),
    hidden: size(),
    inner: size(),
    rows: random.pick([1, 2, 3, 8, 32]),
    choice: random.pick(["any", "any", "same", "not the last"] as const),
    gated: random.pick([{ activation: "silu" }, { activation: "gelu_pytorch_tanh" }, clamped] as const),
    bias: random.next() < 0.4,
    normed: random.next() < 0.7,
    // The fused kernel has all experts in one shard.
    shard: path === "tiled" && random.next() < 0.4 ? 1 + random.below(experts) : experts,
    spread: random.next() < 0.2 ? 1e5 : 1,
    seed,
  };
}

/** `count` random feed-forwards a path, the layouts by turns, and lists. */
export function expertCases(count: number, firstSeed: number, names: readonly LayoutName[] = LAYOUT_NAMES): Case[] {
  let seed = firstSeed;
  const paths = ["fused", "tiled"] as const;
  return [
    ...Array.from({ length: count }, (_, i) =>
      paths.map((path) => feedForwardCase(randomShape(names[i % names.length] ?? "f32", path, seed++), path)),
    ).flat(),
    expertListsCase(1, 1, 1, "any", seed++),
    expertListsCase(64, 8, 128, "any", seed++),
    expertListsCase(33, 3, 7, "same", seed++),
    expertListsCase(64, 9, 257, "not the last", seed++),
    ...manyRowsCases(seed, names),
  ];
}

/** 32 rows by tiles: all to the same experts, and with one that nobody is sent to. */
function manyRowsCases(seed: number, [first = "f32", second = first]: readonly LayoutName[]): Case[] {
  const shape = { ...PLAIN_EXPERTS, group: 32, experts: 7, slots: 3, hidden: 64, inner: 96, rows: 32, shard: 7 };
  return [
    feedForwardCase({ ...shape, layout: first, choice: "same", seed }, "tiled"),
    feedForwardCase({ ...shape, layout: second, choice: "not the last", seed: seed + 1 }, "tiled"),
  ];
}

/** Some experts of Qwen3-30B-A3B, by slices of its hidden size, and of gpt-oss-20b. */
export function realExpertCases(firstSeed: number): Case[] {
  const qwen = {
    ...PLAIN_EXPERTS,
    layout: "affine4",
    group: 64,
    experts: 3,
    hidden: 768,
    inner: 768,
    shard: 3,
  } as const;
  const gated = { activation: "clamped swiglu", alpha: 1.702, limit: 7 } as const;
  const oss = {
    ...PLAIN_EXPERTS,
    layout: "bf16",
    experts: 3,
    hidden: 2880,
    inner: 96,
    bias: true,
    gated,
    shard: 3,
  } as const;
  return [
    feedForwardCase({ ...qwen, rows: 1, seed: firstSeed }, "fused"),
    feedForwardCase({ ...qwen, rows: 9, seed: firstSeed + 1 }, "tiled"),
    feedForwardCase({ ...oss, rows: 2, seed: firstSeed + 2 }, "fused"),
  ];
}

/** Eight rows item by item and by tiles, and each of them alone: equal words. */
function sameExpertsCase(layout: LayoutName, seed: number): Case {
  return {
    kernel: "expert_down_sum",
    title: `same_bits experts ${layout} fused, tiled, one by one seed=${seed}`,
    async run(bed) {
      const shape: ExpertShape = {
        ...PLAIN_EXPERTS,
        layout,
        group: 64,
        experts: 5,
        slots: 3,
        hidden: layouts[layout].scaling === "none" ? 100 : 128,
        inner: layouts[layout].scaling === "none" ? 70 : 192,
        rows: 8,
        bias: true,
        shard: 5,
        seed,
      };
      const from = expertInputs(shape);
      const fused = await runExperts(bed, shape, from, "fused");
      const tiled = await runExperts(bed, shape, from, "tiled");
      const sharded = await runExperts(bed, { ...shape, shard: 2 }, from, "tiled");
      const { y, z } = await oneByOne(bed, shape, from);
      const want = { y: bits(fused.y), z: bits(fused.z) };
      return [
        { name: "y by tiles", got: bits(tiled.y), want: want.y, limit: 0 },
        { name: "z by tiles", got: bits(tiled.z), want: want.z, limit: 0 },
        { name: "z in shards", got: bits(sharded.z), want: want.z, limit: 0 },
        { name: "y one by one", got: y, want: want.y, limit: 0 },
        { name: "z one by one", got: z, want: want.z.subarray(0, from.z.sums), limit: 0 },
      ];
    },
  };
}

/** Each row in a launch of its own: words of y, and of the values of z. */
async function oneByOne(bed: Testbed, shape: ExpertShape, from: ExpertInputs) {
  const { slots, hidden } = shape;
  const { stride } = from.z;
  const [y, z]: [number[], number[]] = [[], []];
  for (let row = 0; row < shape.rows; row++) {
    const own = <T extends Float32Array | readonly number[]>(list: T, width: number) =>
      list.slice(row * width, (row + 1) * width) as T;
    const one = { ...shape, rows: 1 };
    const ids = own(from.ids, slots);
    const [weights, inverses] = [own(from.weights, slots), own(from.inverses, 1)];
    const got = await runExperts(
      bed,
      one,
      {
        ...from,
        ids,
        weights,
        inverses,
        x: own(from.x, hidden),
        y: own(from.y, stride),
        z: activationShape(1, hidden),
        route: routeWords(one, ids, weights, inverses),
      },
      "fused",
    );
    y.push(...bits(got.y));
    z.push(...bits(got.z.subarray(0, stride)));
  }
  return { y, z };
}

/** The experts of each layout in every path. */
export function sameExpertsCases(names: readonly LayoutName[], firstSeed: number): Case[] {
  return names.map((layout, i) => sameExpertsCase(layout, firstSeed + i));
}
