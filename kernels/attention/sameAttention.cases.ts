/** Same row, same bits in attention: through every path, in chunks and token by token, and beside a row that is broken. */
import { bits, equal, sumsAsTaken } from "../sameWords.ts";
import type { Case, Comparison } from "../testbed.ts";
import { queriesFor } from "../xFrom.ts";
import { type AttentionShape, attentionInputs, PLAIN_ATTENTION, pagesWith, stepsOf } from "./attentionData.ts";
import { caches } from "./attentionReference.ts";
import { type AttentionPath, runAttention } from "./attentionRuns.ts";
import { type KvType, PLAIN_KV_TYPES } from "./kv_types.ts";

/** Heads with most of what attention can have. */
export const ATTENTION = { ...PLAIN_ATTENTION, norm: "rms", sinks: true } as const;
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
        ...(window !== null && kvType !== "int8" ? { headDim: 62, rotaryDim: 62 } : {}), // no multiple of four
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
      for (const [name, path] of [...PATHS, ...(queriesFor(bed.gpu) !== "storage" ? WITHOUT_BROADCASTS : [])]) {
        const got = await runAttention(bed, shape, from, pages, path);
        outs.push([`out of ${name}`, bits(got.out)]);
        stored.push([`pages of ${name}`, got.pages]);
        left.push(sumsAsTaken(got.out, got.shape));
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

/** Rows before one that is broken, NaN through and through or in its value alone, are what they are without it. */
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
      const { stride, sums, cols } = whole.shape;
      const comparisons: Comparison[] = [];
      for (const firstColumn of [0, from.vAt]) {
        const qkv = from.qkv.map((v, i) => (i < sound || i % from.stride < firstColumn ? v : Number.NaN));
        const broken = await runAttention(bed, shape, { ...from, qkv }, pages, path);
        const finite = broken.out.subarray(4 * stride, sums).filter((v, i) => i % stride < cols && Number.isFinite(v));
        comparisons.push(
          ...equal([
            ["rows before", bits(whole.out.subarray(0, 4 * stride))],
            [`rows before one broken from column ${firstColumn} on`, bits(broken.out.subarray(0, 4 * stride))],
          ]),
          { name: "values of broken rows that are finite", got: [finite.length], want: [0], limit: 0 },
        );
      }
      return comparisons;
    },
  };
}

/** All ways through attention. */
export function plainSameAttentionCases(firstSeed: number): Case[] {
  let seed = firstSeed;
  return [
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
export function scaledSameAttentionCases(firstSeed: number): Case[] {
  return [
    pathsCase("int8", null, firstSeed),
    pathsCase("int8", 40, firstSeed + 1),
    chunksCase("int8", 0, firstSeed + 2),
    chunksCase("int8", 253, firstSeed + 3),
    chunksCase("int8", 253, firstSeed + 4, 40),
    brokenRowCase("int8", firstSeed + 5),
  ];
}
