/** Cases of the experts' kernels: whole feed-forwards in every path, against a dense loop over experts in f64, and each with the same bits. */
import type { LayoutName } from "../formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "../formats/layouts.ts";
import { activationShape } from "../fragments/activation.ts";
import { bits } from "../sameWords.ts";
import { type Case, Random, type Testbed } from "../testbed.ts";
import { expertListsCase } from "./expert_lists.cases.ts";
import { type ExpertInputs, type ExpertShape, expertInputs, PLAIN_EXPERTS, routeWords } from "./expertData.ts";
import { type ExpertPath, feedForwardCase, runExperts } from "./expertRuns.ts";

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
