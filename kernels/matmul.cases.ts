/** Cases of the three fused matmuls: every layout, group, scale type and number of rows, against f64. */
import { scaleChoices } from "./caseData.ts";
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { ACTIVATIONS } from "./fragments/act.ts";
import type { MatmulRows, XFrom } from "./fragments/matmul.ts";
import { NARROW } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import type { MatmulShape } from "./matmulData.ts";
import { matmulResidualCase, normGateUpCase, normMatmulCase } from "./matmulRuns.ts";
import { type Case, Random } from "./testbed.ts";

const MAKERS = [normMatmulCase, matmulResidualCase, normGateUpCase] as const;

/** A layout at a number of rows. */
export type MatmulVariant = readonly [layout: LayoutName, m: MatmulRows];

/** `count` random shapes of each of the three kernels at each variant. */
export function matmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  let seed = firstSeed;
  return Array.from({ length: count }, () =>
    from.flatMap(([layout, m]) => MAKERS.map((make) => make(randomShape(layout, m, seed++)))),
  ).flat();
}

/** `count` random shapes of norm_matmul at one row for each layout: enough to see that a layout is decoded right. */
export function normMatmulCases(names: readonly LayoutName[], count: number, firstSeed: number): Case[] {
  return names.flatMap((layout, n) =>
    Array.from({ length: count }, (_, i) => normMatmulCase(randomShape(layout, 1, firstSeed + n * count + i))),
  );
}

/** Integer zeros in place of biases, and groups that are half a run of 32, through norm_matmul at one row. */
export function groupCases(firstSeed: number): Case[] {
  const ways = [
    { layout: "affine4", zeros: { bits: 4, add: 1 }, scaleType: "f16", group: 32 },
    { layout: "affine4", zeros: { bits: 4, add: 0 }, scaleType: "bf16", group: 64 },
    { layout: "affine4", zeros: { bits: 0, add: 8 }, scaleType: "f16", group: 128 },
    { layout: "affine8", zeros: { bits: 8, add: 1 }, scaleType: "f32", group: 32 },
    { layout: "affine8", zeros: { bits: 0, add: 128 }, scaleType: "bf16", group: 32 },
    { layout: "e2m1", scaleType: "e4m3", group: 16 },
    { layout: "e2m1", scaleType: "e8m0", group: 8 },
    { layout: "e4m3", scaleType: "e8m0", group: 32 },
    { layout: "codebook4", scaleType: "f32", group: 16 },
    { layout: "e4m3", scaleType: "f32", group: 32, sharedRows: true },
  ] as const;
  return ways.flatMap((way, n) =>
    [3, 37].map((groups, i) =>
      normMatmulCase({
        ...randomShape(way.layout, 1, firstSeed + 2 * n + i),
        spread: 1,
        ...way,
        cols: groups * way.group,
      }),
    ),
  );
}

/** Narrow activations: `count` random shapes of each kernel at each variant that takes them, and one each with values of 1e5. */
export function narrowMatmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  const takes = from.filter(([layout]) => takesNarrow(layouts[layout]));
  let seed = firstSeed;
  return Array.from({ length: count }, (_, i) =>
    takes.flatMap(([layout, m]) =>
      NARROW.flatMap((narrow) =>
        MAKERS.map((make) => {
          const shape = randomShape(layout, m, seed++);
          return make({ ...shape, from: narrow, spread: i === 0 ? 1e5 : 1 });
        }),
      ),
    ),
  ).flat();
}

/**
 * Wide workgroups: `count` random shapes of each kernel at each variant, numbers of parts by turns. Blocks fill no workgroup, nor groups a
 * part; some parts have none.
 */
export function wideMatmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  let seed = firstSeed;
  return Array.from({ length: count }, () =>
    from.flatMap(([layout, m]) =>
      MAKERS.map((make) => {
        const random = new Random(seed * 104_729);
        const choices = make === normGateUpCase ? [4, 1, 2] : [8, 1, 4, 2];
        const parts = choices[seed % choices.length] ?? Number.NaN;
        const shape = randomShape(layout, m, seed++);
        const { scaling } = layouts[layout];
        const group = scaling === "scale" && random.next() < 0.5 ? 16 : shape.group; // half a run
        const cols = scaling === "none" ? 1 + random.below(900) : group * (1 + random.below(20));
        return make({ ...shape, group, cols, outputs: 1 + random.below(600), from: "wide", parts });
      }),
    ),
  ).flat();
}

function randomShape(layout: LayoutName, m: MatmulRows, seed: number): MatmulShape {
  const random = new Random(seed * 7919);
  const group = random.pick([32, 64, 128]);
  return {
    layout,
    group,
    scaleType: random.pick(scaleChoices(layouts[layout])),
    outputs: 1 + random.below(100),
    cols: layouts[layout].scaling !== "none" ? group * (1 + random.below(4)) : 1 + random.below(300),
    rows: random.pick([1, m, m, m + 1, 3 * m]),
    m,
    norm: random.next() < 0.7,
    bias: random.next() < 0.4,
    delta: random.next() < 0.3,
    storedSums: random.next() < 0.6,
    activation: random.pick(ACTIVATIONS),
    shard: random.next() < 0.25 ? 1 + random.below(3) : 0,
    spread: random.next() < 0.15 ? 1e5 : 1,
    seed,
  };
}

/** (outputs, cols) of SmolLM2-135M: qkv, o_proj, down_proj, gate_up, a slice of the head. */
const REAL_MATRICES = [
  { make: normMatmulCase, outputs: 960, cols: 576 },
  { make: matmulResidualCase, outputs: 576, cols: 576 },
  { make: matmulResidualCase, outputs: 576, cols: 1536 },
  { make: normGateUpCase, outputs: 1536, cols: 576 },
  { make: normMatmulCase, outputs: 2048, cols: 576 },
] as const;

/** Matrices of a real model at each variant; the head is a slice of its 49,152 rows. `way`: how x comes, if not as on the adapter. */
export function realMatmulCases(from: readonly MatmulVariant[], firstSeed: number, way?: XFrom): Case[] {
  let seed = firstSeed;
  return from.flatMap(([layout, m]) =>
    REAL_MATRICES.map(({ make, outputs, cols }) =>
      make({
        layout,
        group: 64, // MLX's default group size
        scaleType: "f16",
        outputs,
        cols,
        rows: m,
        m,
        norm: true,
        bias: false,
        delta: false,
        storedSums: seed % 4 > 0,
        activation: "silu",
        shard: outputs === 2048 ? 2 : 0,
        spread: seed % 3 === 0 ? 1e5 : 1,
        ...(way === undefined ? {} : { from: way }),
        seed: seed++,
      }),
    ),
  );
}

/** Shapes at the edges: one output, one column, one row, one over a block, and a wide one. */
export function edgeMatmulCases(from: readonly MatmulVariant[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return from.flatMap(([layout, m]) => {
    const grouped = layouts[layout].scaling !== "none";
    const sizes: readonly (readonly [outputs: number, cols: number])[] = [
      [1, grouped ? 32 : 1],
      [33, grouped ? 32 : 33],
      [31, grouped ? 96 : 31],
      [40, Math.min(8192, 16384 / m)], // as many as a window has room for
    ];
    return sizes.flatMap(([outputs, cols]) =>
      MAKERS.map((make) =>
        make({
          layout,
          group: 32,
          scaleType: "f32",
          outputs,
          cols,
          rows: 1,
          m,
          norm: true,
          bias: true,
          delta: true,
          storedSums: false,
          activation: "gelu_pytorch_tanh",
          shard: 0,
          spread: 1,
          seed: seed++,
        }),
      ),
    );
  });
}
