/**
 * Same row, same bits: a row's result depends neither on how many rows ride along, nor on which dispatches computed it.
 *
 * Compared as words, not as numbers. docs/numerics.md has the orders of summation behind it.
 */

import { type AttentionPath, runAttention } from "./attention/attention.cases.ts";
import { type AttentionShape, attentionInputs, pagesWith, stepsOf } from "./attention/attentionData.ts";
import { caches } from "./attention/attentionReference.ts";
import { type KvType, PLAIN_KV_TYPES } from "./attention/kv_types.ts";
import { fixedSums } from "./caseData.ts";
import { runEmbed } from "./embed.cases.ts";
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import type { ActivationShape } from "./fragments/activation.ts";
import { MATMUL_ROWS, type MatmulRows } from "./fragments/matmul.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import { gateUpInputs, type MatmulShape, matmulInputs, needsOf, residualInputs, residualStream } from "./matmulData.ts";
import { runMatmulResidual, runNormGateUp, runNormMatmul } from "./matmulRuns.ts";
import { runNorm } from "./norm.cases.ts";
import { deltaInputs, runDelta } from "./state/delta_rule.cases.ts";
import { convInputs, runConv } from "./state/short_conv.cases.ts";
import { atOnce, oneByOne, type StepsShape } from "./state/stateData.ts";
import type { Case, Comparison, Testbed } from "./testbed.ts";
import { xFrom } from "./xFrom.ts";

/** The words behind f32s. */
export const bits = (data: Float32Array): Uint32Array => new Uint32Array(data.buffer, data.byteOffset, data.length);

/** Each against the first, word by word. */
export function equal(results: readonly (readonly [name: string, words: Uint32Array])[]): Comparison[] {
  const [first, ...others] = results;
  if (first === undefined) return [];
  return others.map(([name, got]) => ({ name: `${name} against ${first[0]}`, got, want: first[1], limit: 0 }));
}

/** Sums that a producer left against those a consumer takes by itself. */
function sums(data: Float32Array, { sums: at, squares }: ActivationShape): Comparison {
  const got = bits(data.subarray(at, squares));
  return { name: "stored sums against own sums", got, want: bits(fixedSums(data.subarray(0, at))), limit: 0 };
}

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
      return { words: new Uint32Array([...bits(y), ...bits(z)]), left: [sums(z, stream.z)] };
    }
    case "norm_gate_up": {
      const { out, got } = await runNormGateUp(bed, shape, gateUpInputs(shape));
      return { words: bits(got), left: [sums(got, out)] };
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

/** Eight rows through M = 1 and the other `ms` of a way that has an order of its own: a precision, or columns in parts. */
function orderCase(
  kernel: MatmulKernel,
  layout: LayoutName,
  from: Narrow | "wide",
  ms: readonly MatmulRows[],
  seed: number,
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
        results.push([`M=${m}`, (await wordsOf(bed, kernel, { ...shape, m })).words]);
      return equal(results);
    },
  };
}

/** The three matmuls of each layout in wide workgroups, at `ms` besides 1. */
export function wideSameBitsCases(names: readonly LayoutName[], ms: readonly MatmulRows[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return names.flatMap((layout) => MATMUL_KERNELS.map((kernel) => orderCase(kernel, layout, "wide", ms, seed++)));
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
    return [sums(z, activation)];
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
    return [...pairs, sums(whole.z, whole.shape)];
  },
});

/** Heads with most of what attention can have. */
export const ATTENTION = {
  heads: 6,
  kvHeads: 2,
  headDim: 64,
  valueDim: 64,
  rotaryDim: 64,
  interleaved: false,
  norm: "rms",
  sinks: true,
  softcap: 0,
  clip: 0,
  gated: false,
  window: null,
  split: false,
  paddingRows: 0,
  spread: 1,
} as const;
const PATHS: readonly (readonly [name: string, path: AttentionPath])[] = [
  ["fused", { fused: true, split: false }],
  ["fused, split", { fused: true, split: true }],
  ["rope_kv and paged", { fused: false, split: false }],
  ["rope_kv and paged, split", { fused: false, split: true }],
];
/** Where the others have them. */
const WITHOUT_BROADCASTS: typeof PATHS = [
  ["fused without broadcasts", { fused: true, split: false, queriesFrom: "storage" }],
  ["rope_kv and paged without broadcasts", { fused: false, split: false, queriesFrom: "storage" }],
];

/** One row a sequence through every path: a fresh key must count as it is stored. */
function pathsCase(kvType: KvType, window: number | null, seed: number): Case {
  return {
    kernel: "attention_fused",
    title: `same_bits attention ${kvType} window=${window ?? "none"} fused, paged, split seed=${seed}`,
    async run(bed) {
      const shape: AttentionShape = {
        ...ATTENTION,
        kvType,
        window,
        past: [0, 17, 255, 530],
        counts: [1, 1, 1, 1],
        seed,
      };
      const from = attentionInputs(shape);
      const pages = pagesWith(shape, from, caches(shape, from).past);
      const outs: [string, Uint32Array][] = [];
      const stored: [string, Uint32Array][] = [];
      const left: Comparison[] = [];
      for (const [name, path] of [...PATHS, ...(xFrom(bed.gpu) === "broadcast" ? WITHOUT_BROADCASTS : [])]) {
        const got = await runAttention(bed, shape, from, pages, path);
        outs.push([`out of ${name}`, bits(got.out)]);
        stored.push([`pages of ${name}`, got.pages]);
        left.push(sums(got.out, got.shape));
      }
      return [...equal(outs), ...equal(stored), ...left];
    },
  };
}

/** A prompt in one step of several rows, and token by token. */
function chunksCase(kvType: KvType, past: number, seed: number, window: number | null = null): Case {
  const seen = window === null ? "" : ` window=${window}`;
  return {
    kernel: "attention_paged",
    title: `same_bits attention ${kvType}${seen} ${past}+6 at once and one by one seed=${seed}`,
    async run(bed) {
      const shape: AttentionShape = { ...ATTENTION, kvType, window, past: [past], counts: [6], seed };
      const from = attentionInputs(shape);
      let pages = pagesWith(shape, from, caches(shape, from).past);
      const whole = await runAttention(bed, shape, from, pages, { fused: false, split: false });
      const rows: number[] = [];
      for (const step of stepsOf(from)) {
        const got = await runAttention(bed, shape, step, pages, { fused: true, split: false });
        rows.push(...bits(got.out.subarray(0, got.shape.stride)));
        pages = got.pages;
      }
      const values = whole.out.subarray(0, whole.shape.sums);
      return equal([
        ["rows at once", bits(values)],
        ["rows one by one", new Uint32Array(rows)],
      ]).concat(
        equal([
          ["pages at once", whole.pages],
          ["pages one by one", pages],
        ]),
      );
    },
  };
}

/** Rows before one that is broken, NaN through and through, are what they are without it. */
function brokenRowCase(kvType: KvType, seed: number): Case {
  return {
    kernel: "attention_paged",
    title: `same_bits attention ${kvType} rows before a broken one seed=${seed}`,
    async run(bed) {
      const shape: AttentionShape = { ...ATTENTION, kvType, past: [40], counts: [6], seed };
      const from = attentionInputs(shape);
      const pages = pagesWith(shape, from, caches(shape, from).past);
      const path = { fused: false, split: false };
      const whole = await runAttention(bed, shape, from, pages, path);
      const sound = 4 * from.stride;
      const qkv = from.qkv.map((v, i) => (i < sound ? v : Number.NaN));
      const broken = await runAttention(bed, shape, { ...from, qkv }, pages, path);
      const { stride, sums } = whole.shape;
      return [
        ...equal([
          ["rows before", bits(whole.out.subarray(0, 4 * stride))],
          ["rows before a broken one", bits(broken.out.subarray(0, 4 * stride))],
        ]),
        {
          name: "values of broken rows that are finite",
          got: [
            broken.out.subarray(4 * stride, sums).filter((v, i) => i % stride < whole.shape.cols && Number.isFinite(v))
              .length,
          ],
          want: [0],
          limit: 0,
        },
      ];
    },
  };
}

/** The three matmuls of each layout at `ms` besides 1, embed, and all ways through attention. */
export function sameBitsCases(names: readonly LayoutName[], ms: readonly MatmulRows[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return [
    ...names.flatMap((layout) => MATMUL_KERNELS.map((kernel) => matmulCase(kernel, layout, ms, seed++))),
    ...names.map((layout) => embedSumsCase(layout, seed++)),
    ...PLAIN_KV_TYPES.flatMap((kvType) => [
      pathsCase(kvType, null, seed++),
      pathsCase(kvType, 40, seed++),
      chunksCase(kvType, 0, seed++),
      chunksCase(kvType, 253, seed++),
    ]),
    ...PLAIN_KV_TYPES.flatMap((kvType) => [chunksCase(kvType, 253, seed++, 40), brokenRowCase(kvType, seed++)]),
  ];
}

/** All ways through attention over keys and values with scales. */
export function scaledSameBitsCases(firstSeed: number): Case[] {
  return [
    pathsCase("int8", null, firstSeed),
    pathsCase("int8", 40, firstSeed + 1),
    chunksCase("int8", 0, firstSeed + 2),
    chunksCase("int8", 253, firstSeed + 3),
    chunksCase("int8", 253, firstSeed + 4, 40),
    brokenRowCase("int8", firstSeed + 5),
  ];
}

const PAST = { past: [0, 0, 5, 33], padding: 1 } as const;
/** Rows that begin sequences, go on alone, and share steps with others. */
const CHUNKS = [
  [3, 0, 1, 1],
  [1, 9, 1, 0],
  [1, 2, 1, 6],
] as const;

/** A short convolution over sequences at once, in chunks among others, and token by token. */
const convChunksCase = (gated: boolean, seed: number): Case => ({
  kernel: "short_conv",
  title: `same_bits short_conv${gated ? " gated" : ""} at once, in chunks, one by one seed=${seed}`,
  async run(bed) {
    const shape = { ...PAST, steps: CHUNKS, channels: 72, taps: 4, gated, bias: gated, seed };
    return chunksOf(shape, convInputs(shape), (plan, from) => runConv(bed, plan, from));
  },
});

/** The delta rule in the same ways. */
const deltaChunksCase = (valueDim: number, seed: number): Case => ({
  kernel: "delta_rule",
  title: `same_bits delta_rule dims=24,${valueDim} at once, in chunks, one by one seed=${seed}`,
  async run(bed) {
    const shape = { ...PAST, steps: CHUNKS, keyHeads: 2, group: 2, keyDim: 24, valueDim, shift: 0, seed };
    return chunksOf(shape, deltaInputs(shape), (plan, from) => runDelta(bed, plan, from));
  },
});

async function chunksOf<Shape extends StepsShape, From>(
  shape: Shape,
  from: From,
  run: (plan: Shape, from: From) => Promise<{ out: Float32Array; sums: Float32Array; state: Float32Array }>,
): Promise<Comparison[]> {
  const plans: readonly (readonly [string, StepsShape])[] = [
    ["at once", atOnce(shape)],
    ["in chunks", shape],
    ["one by one", oneByOne(shape)],
  ];
  const results: [string, Uint32Array][][] = [[], [], []];
  for (const [name, plan] of plans) {
    const got = await run({ ...shape, ...plan }, from);
    [got.out, got.sums, got.state].forEach((data, i) => {
      results[i]?.push([`${["rows", "sums", "states"][i]} ${name}`, bits(data)]);
    });
  }
  return results.flatMap(equal);
}

/** What keeps a state: the same rows in other steps. */
export function sameStateCases(firstSeed: number): Case[] {
  return [
    convChunksCase(true, firstSeed),
    convChunksCase(false, firstSeed + 1),
    deltaChunksCase(16, firstSeed + 2),
    deltaChunksCase(64, firstSeed + 3),
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
