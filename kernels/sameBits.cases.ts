/**
 * Same row, same bits: a row's result depends neither on how many rows ride along, nor on which dispatches computed it.
 *
 * Compared as words, not as numbers. docs/numerics.md has the orders of summation behind it. The same of attention and of states: attention/sameAttention.cases.ts, state/sameStates.cases.ts.
 */
import { plainSameAttentionCases } from "./attention/sameAttention.cases.ts";
import { runEmbed } from "./embed.cases.ts";
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { MATMUL_ROWS, type MatmulRows } from "./fragments/matmul.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import { gateUpInputs, type MatmulShape, matmulInputs, needsOf, residualInputs, residualStream } from "./matmulData.ts";
import { runMatmulResidual, runNormGateUp, runNormMatmul } from "./matmulRuns.ts";
import { runNorm } from "./norm.cases.ts";
import { bits, equal, sumsAsTaken } from "./sameWords.ts";
import type { Case, Testbed } from "./testbed.ts";
import { xFrom } from "./xFrom.ts";

/** Numbers of rows besides 1. */
export const MANY_ROWS = MATMUL_ROWS.filter((m) => m > 1);

/** The fused matmuls. */
export const MATMUL_KERNELS = ["norm_matmul", "matmul_residual", "norm_gate_up"] as const;
export type MatmulKernel = (typeof MATMUL_KERNELS)[number];

/** Every output of the kernel as words, and its sums where it leaves some. */
export async function wordsOf(bed: Testbed, kernel: MatmulKernel, shape: MatmulShape) {
  switch (kernel) {
    case "norm_matmul":
      return { words: bits(await runNormMatmul(bed, shape, matmulInputs(shape))), left: [] };
    case "matmul_residual": {
      const from = residualInputs(shape);
      const stream = residualStream(shape, from);
      const { y, z } = await runMatmulResidual(bed, shape, from, stream);
      return { words: new Uint32Array([...bits(y), ...bits(z)]), left: [sumsAsTaken(z, stream.z)] };
    }
    case "norm_gate_up": {
      const { out, got } = await runNormGateUp(bed, shape, gateUpInputs(shape));
      return { words: bits(got), left: [sumsAsTaken(got, out)] };
    }
  }
}

/** What the numbers of rows are compared on. */
export const sharedShape = (kernel: MatmulKernel, layout: LayoutName, seed: number): MatmulShape => ({
  layout,
  group: 64,
  scaleType: "f16",
  outputs: 70,
  cols: layouts[layout].scaling !== "none" ? 320 : 301,
  rows: 8,
  m: 1,
  norm: kernel !== "matmul_residual",
  bias: true,
  delta: true,
  storedSums: true,
  activation: "silu",
  shard: 0,
  spread: 1,
  seed,
});

/** Eight rows through M = 1 and the other `ms`, with stored and with own sums. */
function matmulCase(kernel: MatmulKernel, layout: LayoutName, ms: readonly MatmulRows[], seed: number): Case {
  return {
    kernel,
    title: `same_bits ${kernel} ${layout} M=1,${ms.join(",")} seed=${seed}`,
    async run(bed) {
      const shape = sharedShape(kernel, layout, seed);
      const from = xFrom(bed.gpu) === "wide" ? "wide" : "storage"; // the others of a device give its bits
      const one = await wordsOf(bed, kernel, { ...shape, from });
      const results: [string, Uint32Array][] = [["M=1", one.words]];
      for (const m of [1, ...ms] as const) {
        if (m > 1 || xFrom(bed.gpu) !== from)
          results.push([`M=${m}`, (await wordsOf(bed, kernel, { ...shape, m })).words]);
        if (kernel !== "matmul_residual") continue;
        results.push([`M=${m} with own sums`, (await wordsOf(bed, kernel, { ...shape, m, storedSums: false })).words]);
      }
      return [...equal(results), ...one.left];
    },
  };
}

/** Eight rows through M = 1 and the other `ms` of a way that has an order of its own: a precision, or columns in parts; `ownSums`: with those too. */
function orderCase(
  kernel: MatmulKernel,
  layout: LayoutName,
  from: Narrow | "wide",
  ms: readonly MatmulRows[],
  seed: number,
  ownSums = false,
): Case {
  return {
    kernel,
    title: `same_bits ${kernel} ${layout} ${from} M=1,${ms.join(",")} seed=${seed}`,
    ...needsOf({ from }),
    async run(bed) {
      const parts = from === "wide" ? { parts: 4 } : {};
      const shape = { ...sharedShape(kernel, layout, seed), from, ...parts };
      const results: [string, Uint32Array][] = [];
      for (const m of [1, ...ms] as const)
        for (const storedSums of ownSums ? [true, false] : [true]) {
          const { words } = await wordsOf(bed, kernel, { ...shape, m, storedSums });
          results.push([`M=${m}${storedSums ? "" : " with own sums"}`, words]);
        }
      return equal(results);
    },
  };
}

/** The three matmuls of each layout in wide workgroups, at `ms` besides 1; `ownSums`: with those too, where there are such kernels. */
export function wideSameBitsCases(
  names: readonly LayoutName[],
  ms: readonly MatmulRows[],
  firstSeed: number,
  ownSums = false,
): Case[] {
  let seed = firstSeed;
  return names.flatMap((layout) =>
    MATMUL_KERNELS.map((kernel) =>
      orderCase(kernel, layout, "wide", ms, seed++, ownSums && kernel === "matmul_residual"),
    ),
  );
}

/** The three matmuls of each layout, with bytes and with halves. */
export function narrowSameBitsCases(names: readonly LayoutName[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return names
    .filter((layout) => takesNarrow(layouts[layout]))
    .flatMap((layout) =>
      NARROW.flatMap((narrow) => MATMUL_KERNELS.map((kernel) => orderCase(kernel, layout, narrow, MANY_ROWS, seed++))),
    );
}

/** What embed leaves: its sums are those that a matmul would take. */
const embedSumsCase = (layout: LayoutName, seed: number): Case => ({
  kernel: "embed",
  title: `same_bits embed ${layout} sums seed=${seed}`,
  async run(bed) {
    const ends = { vocab: 50, firstRow: 0, endRow: 50 };
    const shape = { layout, group: 32, scaleType: "f16", cols: 352, rows: 5, multiplier: 3.3, ...ends, seed } as const;
    const { z, shape: activation } = await runEmbed(bed, shape);
    return [sumsAsTaken(z, activation)];
  },
});

/** Five rows of a norm at once, and each alone; its sums are those that a matmul would take. */
const normRowsCase = (centred: boolean, behind: boolean, seed: number): Case => ({
  kernel: "norm",
  title: `same_bits norm ${centred ? "layer" : "rms"} ${behind ? "behind" : "before"} rows at once and one by one seed=${seed}`,
  async run(bed) {
    const shape = { rows: 5, cols: 301, centred, behind, bias: true, next: behind, scale: 0.3, offset: 1, seed };
    const whole = await runNorm(bed, shape);
    const { stride } = whole.shape;
    const rows: (readonly [string, Uint32Array])[] = [];
    for (let row = 0; row < shape.rows; row++) {
      const alone = await runNorm(bed, shape, row, 1);
      rows.push([`row ${row} of z at once`, bits(whole.z.slice(row * stride, (row + 1) * stride))]);
      rows.push([`row ${row} of z alone`, bits(alone.z.slice(0, stride))]);
      rows.push([`row ${row} of y at once`, bits(whole.y.slice(row * stride, (row + 1) * stride))]);
      rows.push([`row ${row} of y alone`, bits(alone.y.slice(0, stride))]);
    }
    const pairs = rows.flatMap((_, i) => (i % 2 === 0 ? equal(rows.slice(i, i + 2)) : []));
    return [...pairs, sumsAsTaken(whole.z, whole.shape)];
  },
});

/** The three matmuls of each layout at `ms` besides 1, embed, and all ways through attention. */
export function sameBitsCases(names: readonly LayoutName[], ms: readonly MatmulRows[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return [
    ...names.flatMap((layout) => MATMUL_KERNELS.map((kernel) => matmulCase(kernel, layout, ms, seed++))),
    ...names.map((layout) => embedSumsCase(layout, seed++)),
    ...plainSameAttentionCases(seed),
  ];
}

/** Norms on their own, both kinds on both sides of a block. */
export function sameNormCases(firstSeed: number): Case[] {
  return [
    normRowsCase(true, false, firstSeed),
    normRowsCase(true, true, firstSeed + 1),
    normRowsCase(false, true, firstSeed + 2),
  ];
}
