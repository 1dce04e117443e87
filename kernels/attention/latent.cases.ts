/** The cases of latent attention's kernels: of small shapes, and of real models' heads. */
import type { LayoutName } from "../formats/layout.ts";
import { LAYOUT_NAMES } from "../formats/layouts.ts";
import { padRowsCase } from "../pad_rows.cases.ts";
import type { Case } from "../testbed.ts";
import { PLAIN_KV_TYPES } from "./kv_types.ts";
import { latentAttentionCase, sameRowsCase } from "./latent_attention.cases.ts";
import { latentKvCase } from "./latent_kv.cases.ts";
import { latentQueryCase } from "./latent_query.cases.ts";
import { latentValueCase } from "./latent_value.cases.ts";
import { LATENT, type LatentShape } from "./latentData.ts";

/** Widths, heads and lengths that differ in what they touch. */
const SHAPES: readonly Partial<LatentShape>[] = [
  { past: [41, 300], counts: [1, 1] },
  {
    heads: 3,
    latent: 24,
    nope: 16,
    valueDim: 24,
    rank: 32,
    past: [7, 15],
    counts: [5, 4],
    paddingRows: 1,
    sorted: true,
  },
  { heads: 1, latent: 96, rotaryDim: 32, nope: 6, valueDim: 32, rank: 0, interleaved: false, past: [0], counts: [1] },
  { heads: 9, latent: 34, rotaryDim: 6, nope: 35, valueDim: 66, rank: 1, past: [254], counts: [4], split: true },
];

/** Each kernel with every shape, KV types and layouts by turns. */
export function latentCases(firstSeed: number, names: readonly LayoutName[]): Case[] {
  const shapes = SHAPES.map((shape, i): LatentShape => {
    const layout = names[i % names.length] ?? "f32";
    return { ...LATENT, ...shape, layout, kvType: PLAIN_KV_TYPES[i % 2] ?? "f32", seed: firstSeed + 10 * i };
  });
  return shapes.flatMap((s, i) => [
    latentAttentionCase(s),
    latentKvCase({ ...s, seed: s.seed + 1 }),
    latentQueryCase({ ...s, seed: s.seed + 2 }),
    latentValueCase({ ...s, seed: s.seed + 3 }),
    ...(i === 0 ? PLAIN_KV_TYPES.map((kvType, k) => sameRowsCase(kvType, s.seed + 4 + k)) : []),
    ...(i === 1 ? [padRowsCase(5, 24, s.seed + 4), padRowsCase(2, 2100, s.seed + 5)] : []),
  ]);
}

/** DeepSeek-V2-Lite's and V3's heads, fewer of them, in every layout and KV type. */
export function realLatentCases(firstSeed: number): Case[] {
  const real = { latent: 512, rotaryDim: 64, nope: 128, valueDim: 128, heads: 6 } as const;
  const steps = [
    { past: [300, 20], counts: [1, 1] },
    { past: [250], counts: [9] },
  ];
  const attended = steps.flatMap((step, i) =>
    PLAIN_KV_TYPES.flatMap((kvType, k) => {
      const s: LatentShape = {
        ...LATENT,
        ...real,
        ...step,
        kvType,
        rank: i === 0 ? 1536 : 0,
        seed: firstSeed + 4 * i + 2 * k,
      };
      return [latentAttentionCase(s), latentKvCase({ ...s, seed: s.seed + 1 })];
    }),
  );
  const projections = LAYOUT_NAMES.flatMap((layout, i) => {
    const s: LatentShape = {
      ...LATENT,
      ...real,
      heads: 2,
      layout,
      group: 64,
      past: [3],
      counts: [6],
      seed: firstSeed + 100 + 2 * i,
    };
    return [latentQueryCase(s), latentValueCase({ ...s, seed: s.seed + 1 })];
  });
  return [...attended, ...projections];
}
