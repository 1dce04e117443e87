/** The batch: what a step computes, as one u32 buffer (kernels/fragments/batch.ts), and which bucket of programs fits it. */

import { f32Bits } from "../kernels/formats/halves.ts";
import { PAGE_TOKENS, powerOfTwo, ROW, ROW_WORDS, SAMPLE, SAMPLE_WORDS, splitsOf } from "../kernels/fragments/batch.ts";
import { PURPOSE } from "../kernels/fragments/philox.ts";
import { NONE } from "../kernels/kernel.ts";
import type { RopeTable } from "./ropeTable.ts";
import type { SampleLists } from "./sampleLists.ts";
import type { Schedule } from "./scheduler.ts";
import type { PageCopy, Sequence } from "./sequence.ts";

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
  /** Whether rules change logits before a token is drawn. */
  readonly adjusted: boolean;
  /** Whether a sample's target was drawn by a draft, and is to be verified. */
  readonly verify: boolean;
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
  /** Of the row, and the token that it was computed from: a proposal may turn out to be none of the sequence's. */
  readonly position: number;
  readonly token: number;
  /** The token behind it, as far as it is known, or was proposed; else NONE. */
  readonly target: number;
  /** Row of the scores that the target was drawn from by a draft, or NONE. */
  readonly drafted: number;
}

/** A step laid out. */
export interface Batch {
  readonly bucket: Bucket;
  /** Rows that are tokens. */
  readonly rows: number;
  /** Words of the buffer in use. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** Rules of the samples: empty unless the bucket is adjusted. */
  readonly lists: Uint32Array<ArrayBuffer>;
  readonly samples: readonly Sample[];
  /** Pages that are copied before it. */
  readonly copies: readonly PageCopy[];
  /** Keys that its longest row sees. */
  readonly longest: number;
}

/** Stop ids of a sequence that the GPU looks for; should there be more, the others are found when they are read. */
const STOP_IDS = 16;

/** u32 words that any batch of the engine fits in. */
export const batchWords = (sequences: number, pagesEach: number, groups: number): number =>
  TABLES_AT + sequences * (pagesEach * groups + STOP_IDS);

const NOTHING: readonly number[] = [];

/** A number of its own for each bucket, whose counts are 0 or powers of two. */
export function bucketKey(bucket: Bucket): number {
  const { rows, splits, samples, top, kind } = bucket;
  let key = Math.clz32(rows);
  for (const count of [splits, samples, top]) key = 33 * key + Math.clz32(count); // 0 to 32
  const flags = [bucket.oneRowEach, bucket.everyRow, kind === "score", bucket.routes, bucket.adjusted, bucket.verify];
  for (const flag of flags) key = 2 * key + (flag ? 1 : 0);
  return key;
}

/** Where a step is laid out. */
export interface BatchMemory {
  readonly rope: RopeTable;
  /** Written from its beginning; may hold anything. */
  readonly words: Uint32Array<ArrayBuffer>;
  readonly lists: SampleLists;
}

/** Lays a schedule out. */
export function buildBatch({ kind, entries, copies }: Schedule, { rope, words, lists }: BatchMemory): Batch {
  rope.beginStep();
  lists.begin();
  const samples: Sample[] = [];
  let [row, table, longest, top] = [0, TABLES_AT, 0, 0];
  let [oneRowEach, routes, verify] = [true, false, false];
  for (const { sequence, count, drafts, drafted } of entries) {
    const { tokens, computed, tables, options } = sequence;
    const end = computed + count + drafts.length;
    let rules = NONE; // one block for all samples of a sequence: each sees as many tokens as its position says
    const [pages, others] = tables;
    words.set(pages, table);
    const stopIds = [...(options.ending?.stopIds ?? NOTHING)].slice(0, STOP_IDS);
    const stops = table + pages.length;
    words.set(stopIds, stops);
    const second = stops + stopIds.length;
    words.set(others, second);
    for (let position = computed; position < end; position++) {
      const token = tokens[position] ?? drafts[position - tokens.length] ?? NONE;
      writeRow(words, row, { sequence, position, token }, rope, [table, second]);
      if (options.kind === "score" || position >= tokens.length - 1) {
        const place = position + 1 - tokens.length;
        const target = tokens[position + 1] ?? drafts[place] ?? NONE;
        const sample = { sequence, position, token, target, drafted: drafted?.[place] ?? NONE };
        if (options.sampling.rules !== null && rules === NONE)
          rules = lists.add(options.sampling.rules, tokens, drafts);
        writeSample(words, samples.length, sample, { row, rules, stops, stopCount: stopIds.length });
        samples.push(sample);
        top = Math.max(top, options.top);
        routes ||= options.experts;
        verify ||= sample.drafted !== NONE;
      }
      row++;
    }
    table = second + others.length;
    longest = Math.max(longest, end);
    oneRowEach &&= end === computed + 1;
  }
  const bucket: Bucket = {
    rows: powerOfTwo(row),
    oneRowEach,
    splits: splitsOf(longest),
    samples: powerOfTwo(samples.length),
    everyRow: samples.length === row,
    kind,
    top: powerOfTwo(top),
    routes,
    adjusted: lists.words.length > 0,
    verify,
  };
  fillUp(bucket, words, row, samples.length);
  return { bucket, rows: row, words: words.subarray(0, table), lists: lists.words, samples, copies, longest };
}

/** The bucket of a step in which every sequence has `steps` tokens more than in this one. */
export function bucketAhead({ bucket, longest }: Batch, steps: number): Bucket {
  return { ...bucket, splits: splitsOf(longest + steps) };
}

/** A step of the bucket that computes nothing for anybody. */
export function emptyBatch(bucket: Bucket, words: Uint32Array<ArrayBuffer>): Batch {
  fillUp(bucket, words, 0, 0);
  const nothing = { samples: [], copies: [], lists: new Uint32Array(), longest: 0 };
  return { bucket, rows: 0, words: words.subarray(0, TABLES_AT), ...nothing };
}

/** Rows and samples that only fill the bucket up: no token of a sequence, nothing to see, nothing to write. */
function fillUp(bucket: Bucket, words: Uint32Array<ArrayBuffer>, rows: number, samples: number): void {
  words.fill(0, rows * ROW_WORDS, bucket.rows * ROW_WORDS);
  for (let i = rows; i < bucket.rows; i++) words[i * ROW_WORDS + ROW.slot] = NONE;
  words.fill(0, SAMPLES_AT + samples * SAMPLE_WORDS, SAMPLES_AT + bucket.samples * SAMPLE_WORDS);
  for (
    let at = SAMPLES_AT + samples * SAMPLE_WORDS;
    at < SAMPLES_AT + bucket.samples * SAMPLE_WORDS;
    at += SAMPLE_WORDS
  ) {
    words[at + SAMPLE.target] = NONE;
    words[at + SAMPLE.rules] = NONE;
    words[at + SAMPLE.drafted] = NONE;
  }
}

/** Written word by word, as the next. */
function writeRow(
  words: Uint32Array<ArrayBuffer>,
  row: number,
  { sequence, position, token }: Pick<Sample, "sequence" | "position" | "token">,
  rope: RopeTable,
  [first, second]: readonly [number, number],
): void {
  const at = row * ROW_WORDS;
  const page = sequence.pages[Math.floor(position / PAGE_TOKENS)] ?? NONE;
  words.fill(0, at, at + ROW_WORDS);
  words[at + ROW.token] = token;
  words[at + ROW.position] = position;
  words[at + ROW.slot] = page * PAGE_TOKENS + (position % PAGE_TOKENS);
  words[at + ROW.length] = position + 1;
  words[at + ROW.rope] = rope.rowOf(position, sequence.passLength(position));
  words[at + ROW.table] = first;
  words[at + ROW.table + 1] = second;
  words[at + ROW.state] = sequence.state ?? NONE;
}

function writeSample(
  words: Uint32Array<ArrayBuffer>,
  index: number,
  { sequence, position, target, drafted }: Sample,
  places: { readonly row: number; readonly rules: number; readonly stops: number; readonly stopCount: number },
): void {
  const { temperature, topK, topP, minP, typicalP, seed, choice } = sequence.options.sampling;
  const at = SAMPLES_AT + index * SAMPLE_WORDS;
  words.fill(0, at, at + SAMPLE_WORDS);
  words[at + SAMPLE.row] = places.row;
  words[at + SAMPLE.temperature] = f32Bits(temperature);
  words[at + SAMPLE.topK] = topK;
  words[at + SAMPLE.topP] = f32Bits(topP);
  words[at + SAMPLE.minP] = f32Bits(minP);
  words[at + SAMPLE.seedLow] = seed % 2 ** 32;
  words[at + SAMPLE.seedHigh] = Math.floor(seed / 2 ** 32);
  words[at + SAMPLE.choice] = choice;
  words[at + SAMPLE.position] = position + 1;
  words[at + SAMPLE.target] = target;
  words[at + SAMPLE.typicalP] = f32Bits(typicalP);
  words[at + SAMPLE.rules] = places.rules;
  words[at + SAMPLE.purpose] = sequence.options.purpose ?? PURPOSE.sample;
  words[at + SAMPLE.drafted] = drafted;
  words[at + SAMPLE.stops] = places.stops;
  words[at + SAMPLE.stopCount] = places.stopCount;
}
