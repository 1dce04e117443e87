/** What the cases of latent attention share: shapes, pages of latents, matrices of heads. */
import { randomMatrix } from "../caseData.ts";
import { type LayoutName, paddedRows } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { bits } from "../sameWords.ts";
import type { Comparison, Random, Testbed } from "../testbed.ts";
import { type AttentionInputs, type AttentionShape, type Caches, PLAIN_ATTENTION, pagesWith } from "./attentionData.ts";
import type { PlainKvType } from "./kv_types.ts";
import { LATENT_ROWS, type LatentRows } from "./latent_query.ts";
import type { QueriesFrom } from "./tile.ts";

/** What varies between the cases. */
export interface LatentShape {
  readonly kvType: PlainKvType;
  readonly layout: LayoutName;
  readonly group: number;
  readonly heads: number;
  readonly latent: number;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly nope: number;
  readonly valueDim: number;
  /** Width of queries' latents; 0: they have none. */
  readonly rank: number;
  readonly past: readonly number[];
  readonly counts: readonly number[];
  readonly split: boolean;
  readonly paddingRows: number;
  /** Whether the columns of keys' weights are stored in another order. */
  readonly sorted: boolean;
  /** Rows at once that are tried; left out: each number. */
  readonly ways?: readonly LatentRows[];
  /** Where queries and exponentials come from; left out, as the model has them on the adapter. */
  readonly queriesFrom?: QueriesFrom;
  readonly seed: number;
}

/** A small model's. */
export const LATENT: LatentShape = {
  kvType: "f32",
  layout: "f32",
  group: 32,
  heads: 5,
  latent: 64,
  rotaryDim: 16,
  interleaved: true,
  nope: 24,
  valueDim: 40,
  rank: 48,
  past: [0],
  counts: [1],
  split: false,
  paddingRows: 0,
  sorted: false,
  seed: 0,
};

/** NMSE of sums of products. */
export const SUM_LIMIT = 1e-10;

/** The same as attention with one KV head, whose queries and keys are ready. */
export const asAttention = (s: LatentShape, rotaryDim = 0): AttentionShape => ({
  ...PLAIN_ATTENTION,
  ...s,
  kvHeads: 1,
  headDim: s.latent + s.rotaryDim,
  valueDim: s.latent,
  rotaryDim,
});

/** The rows of a step in a title. */
export const rowsTitle = ({ past, counts }: LatentShape) => counts.map((count, i) => `${past[i]}+${count}`).join(",");

/** Every token's value is the beginning of its key. */
export const latents = (cache: Caches, latent: number): Caches =>
  cache.map((heads) => heads.map((tokens) => tokens.map(({ k }) => ({ k, v: k.slice(0, latent) }))));

/** Pages that hold keys alone. */
export const latentPages = (shape: AttentionShape, from: AttentionInputs, cache: Caches): Uint32Array =>
  pagesWith({ ...shape, valueDim: 0 }, from, latents(cache, 0));

/** A matrix of heads, each from a whole block on: what lies between them is not zero, and must not count. */
export function byHead(s: LatentShape, random: Random, rows: number) {
  const matrix = randomMatrix(random, layouts[s.layout], s.heads * paddedRows(rows), s.latent, s.group);
  const table = new Float32Array(matrix.shape.table ?? [0]);
  return { matrix, table, stored: { ...matrix.shape, layout: s.layout, tableAt: 0 } };
}

/** It in buffers. */
export function uploaded(bed: Testbed, { matrix, table }: ReturnType<typeof byHead>) {
  const words = bed.buffer(matrix.packed.words);
  const scales = matrix.packed.scales.length > 0 ? bed.buffer(matrix.packed.scales) : words;
  return { words, scales, aux: bed.buffer(table) };
}

/** The result of one row a launch, and that those of other numbers are equal. */
export async function everyWay(
  { ways = LATENT_ROWS }: LatentShape,
  run: (rows: LatentRows) => Promise<Float32Array>,
): Promise<{ readonly got: Float32Array; readonly same: readonly Comparison[] }> {
  const got = await run(LATENT_ROWS[0]);
  const same: Comparison[] = [];
  for (const rows of ways.filter((way) => way > 1)) {
    same.push({ name: `${rows} rows at once against one`, got: bits(await run(rows)), want: bits(got), limit: 0 });
  }
  return { got, same };
}
