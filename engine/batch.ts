/** The batch: what a step computes, as one u32 buffer (kernels/fragments/batch.ts), and which bucket of programs fits it. */

import { f32Bits } from "../kernels/formats/halves.ts";
import { KEY_SPLIT, PAGE_TOKENS, ROW_WORDS, SAMPLE, SAMPLE_WORDS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import type { RopeTable } from "./ropeTable.ts";
import type { Schedule } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/** Most rows of a step. */
export const MAX_ROWS = 64;
/** Where samples and block tables begin, in words: the same in every program. */
export const SAMPLES_AT = MAX_ROWS * ROW_WORDS;
const TABLES_AT = SAMPLES_AT + MAX_ROWS * SAMPLE_WORDS;

/** What a program is recorded for. */
export interface Bucket {
  readonly rows: number;
  readonly oneRowEach: boolean;
  /** 0: unsplit. */
  readonly splits: number;
  readonly samples: number;
  /** Whether the samples are the rows in order, so that none need be picked out. */
  readonly everyRow: boolean;
  readonly kind: "generate" | "score";
  /** Best tokens found a sample: the most that one asks for, rounded up. */
  readonly top: number;
  /** Whether the experts of each row are read back. */
  readonly routes: boolean;
}

/** What a step of the bucket computes, in words: "64 rows, 1 sample". */
export function bucketTitle({ rows, samples, splits, kind }: Bucket): string {
  const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const split = splits === 0 ? [] : [`${splits} splits of the keys`];
  return [count(rows, "row"), count(samples, kind === "score" ? "score" : "sample"), ...split].join(", ");
}

/** A row whose logits are wanted. */
export interface Sample {
  readonly sequence: Sequence;
  /** Of the row. */
  readonly position: number;
  readonly target: number;
}

/** A step laid out. */
export interface Batch {
  readonly bucket: Bucket;
  /** Words of the buffer in use. */
  readonly words: Uint32Array<ArrayBuffer>;
  readonly samples: readonly Sample[];
}

/** u32 words that any batch of the engine fits in. */
export const batchWords = (sequences: number, pagesEach: number): number => TABLES_AT + sequences * pagesEach;

const powerOfTwo = (count: number): number => (count <= 1 ? count : 2 ** Math.ceil(Math.log2(count)));

/** Lays a schedule out. `words` is written from its beginning and may hold anything. */
export function buildBatch({ kind, entries }: Schedule, rope: RopeTable, words: Uint32Array<ArrayBuffer>): Batch {
  rope.beginStep();
  const samples: Sample[] = [];
  let [row, table, longest] = [0, TABLES_AT, 0];
  for (const { sequence, count } of entries) {
    const { tokens, computed, pages, options } = sequence;
    words.set(pages, table);
    for (let position = computed; position < computed + count; position++) {
      const slot = (pages[Math.floor(position / PAGE_TOKENS)] ?? NONE) * PAGE_TOKENS + (position % PAGE_TOKENS);
      const ropeRow = rope.rowOf(position, sequence.passLength(position));
      words.set([tokens[position] ?? NONE, position, slot, position + 1, ropeRow, table, 0, 0], row * ROW_WORDS);
      const wanted = options.kind === "score" || position === tokens.length - 1;
      if (wanted) {
        const sample = { sequence, position, target: tokens[position + 1] ?? NONE };
        words.set(sampleRecord(sample, row), SAMPLES_AT + samples.length * SAMPLE_WORDS);
        samples.push(sample);
      }
      row++;
    }
    table += pages.length;
    longest = Math.max(longest, computed + count);
  }
  const splits = Math.ceil(longest / KEY_SPLIT);
  const everyRow = samples.length === row;
  const bucket: Bucket = {
    rows: powerOfTwo(row),
    oneRowEach: entries.every(({ count }) => count === 1),
    splits: splits > 1 ? powerOfTwo(splits) : 0,
    samples: powerOfTwo(samples.length),
    everyRow,
    kind,
    top: powerOfTwo(Math.max(0, ...samples.map(({ sequence }) => sequence.options.top))),
    routes: samples.some(({ sequence }) => sequence.options.experts),
  };
  fillUp(bucket, words, row, samples.length);
  return { bucket, words: words.subarray(0, table), samples };
}

/** A step of the bucket that computes nothing for anybody. */
export function emptyBatch(bucket: Bucket, words: Uint32Array<ArrayBuffer>): Batch {
  fillUp(bucket, words, 0, 0);
  return { bucket, words: words.subarray(0, TABLES_AT), samples: [] };
}

/** Rows and samples that only fill the bucket up: no token of a sequence, nothing to see, nothing to write. */
function fillUp(bucket: Bucket, words: Uint32Array<ArrayBuffer>, rows: number, samples: number): void {
  for (let i = rows; i < bucket.rows; i++) words.set([0, 0, NONE, 0, 0, 0, 0, 0], i * ROW_WORDS);
  for (let i = samples; i < bucket.samples; i++) {
    const filler = Array.from({ length: SAMPLE_WORDS }, (_, word) => (word === SAMPLE.target ? NONE : 0));
    words.set(filler, SAMPLES_AT + i * SAMPLE_WORDS);
  }
}

function sampleRecord({ sequence, position, target }: Sample, row: number): number[] {
  const { temperature, topK, topP, minP, seed } = sequence.options.sampling;
  const record = new Array<number>(SAMPLE_WORDS).fill(0);
  record[SAMPLE.row] = row;
  record[SAMPLE.temperature] = f32Bits(temperature);
  record[SAMPLE.topK] = topK;
  record[SAMPLE.topP] = f32Bits(topP);
  record[SAMPLE.minP] = f32Bits(minP);
  record[SAMPLE.seedLow] = seed % 2 ** 32;
  record[SAMPLE.seedHigh] = Math.floor(seed / 2 ** 32);
  record[SAMPLE.choice] = 0;
  record[SAMPLE.position] = position + 1;
  record[SAMPLE.target] = target;
  return record;
}
