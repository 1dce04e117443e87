import { expect, test } from "vitest";
import { ROW, ROW_WORDS, SAMPLE, SAMPLE_WORDS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import { type Bucket, bucketKey, emptyBatch, SAMPLES_AT } from "./batch.ts";

const powers = (most: number) => Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);
const one: Bucket = {
  rows: 1,
  oneRowEach: true,
  splits: 0,
  samples: 1,
  everyRow: true,
  kind: "generate",
  top: 0,
  routes: false,
  adjusted: false,
  verify: false,
};

test("every bucket has a key of its own", () => {
  const flags = [true, false];
  const buckets = powers(64).flatMap((rows) =>
    [0, ...powers(64)].flatMap((samples) =>
      [0, ...powers(2 ** 16).slice(1)].flatMap((splits) =>
        [0, 1, 4, 64].flatMap((top) =>
          flags.flatMap((oneRowEach) =>
            flags.flatMap((everyRow) =>
              (["generate", "score"] as const).map(
                (kind): Bucket => ({
                  rows,
                  oneRowEach,
                  splits,
                  samples,
                  everyRow,
                  kind,
                  top,
                  routes: top === 4,
                  adjusted: top === 64,
                  verify: splits === 4,
                }),
              ),
            ),
          ),
        ),
      ),
    ),
  );
  const keys = buckets.map(bucketKey);
  expect(new Set(keys).size).toBe(buckets.length);
  expect(keys.every(Number.isSafeInteger)).toBe(true);
});

test("an empty step sees nothing, writes nothing and wants nothing, whatever was there", () => {
  const words = new Uint32Array(SAMPLES_AT + 64 * SAMPLE_WORDS).fill(7);
  const { samples, words: used } = emptyBatch({ ...one, rows: 4, samples: 2 }, words);
  expect(samples).toEqual([]);
  for (let row = 0; row < 4; row++) {
    const record = [...used.subarray(row * ROW_WORDS, (row + 1) * ROW_WORDS)];
    expect([record[ROW.slot], record[ROW.length]]).toEqual([NONE, 0]);
    expect(record.filter((_, word) => word !== ROW.slot)).toEqual(new Array(ROW_WORDS - 1).fill(0));
  }
  for (let i = 0; i < 2; i++) {
    const record = [...used.subarray(SAMPLES_AT + i * SAMPLE_WORDS, SAMPLES_AT + (i + 1) * SAMPLE_WORDS)];
    const none: readonly number[] = [SAMPLE.target, SAMPLE.rules, SAMPLE.drafted];
    expect(none.map((word) => record[word])).toEqual([NONE, NONE, NONE]);
    expect(record.filter((_, word) => !none.includes(word))).toEqual(new Array(SAMPLE_WORDS - 3).fill(0));
  }
});
