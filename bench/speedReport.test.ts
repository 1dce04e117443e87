import { describe, expect, test } from "vitest";
import type { Repetition, SpeedRow } from "./speed.ts";
import { noiseOf, SPEED_HEAD, type SpeedSubject, speedCells, speedRecord } from "./speedReport.ts";

const subject: SpeedSubject = {
  model: "tiny",
  size: 2 ** 20,
  params: 1_500_000,
  weights: "affine4/64",
  kv: "f16",
  adapter: "llvmpipe",
  bytes: { layers: 1_000_000, head: 0, kvToken: 0, states: 0 },
  rowsPerStep: 64,
  bandwidth: 1e9,
};
const repetition = (tokensPerSecond: number): Repetition => ({
  milliseconds: 10_000 / tokensPerSecond,
  tokensPerSecond,
  computedTokens: 1,
  cachedTokens: 0,
  firstTokenMs: [5],
  betweenTokensMs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  dispatches: 130,
  submits: 10,
  bytesBack: 80,
  encodeMs: 0.6,
});
const row = (rates: readonly number[], error: string | null = null): SpeedRow => ({
  kind: "tg",
  tokens: 10,
  depth: 0,
  batch: 1,
  name: "tg10",
  repetitions: rates.map(repetition),
  error,
});

describe("a row of speed", () => {
  test("has mean, deviation, samples, percentiles and what a token costs", () => {
    const record = speedRecord(row([90, 110]), subject);
    expect(record).toMatchObject({
      test: "tg10",
      backend: "WebGPU",
      computed_tokens: 2,
      cached_tokens: 0,
      error: null,
    });
    expect(record.speed).toMatchObject({
      tokens_per_second: { mean: 100, samples: [90, 110] },
      between_tokens_ms: { p50: 5.5 },
      first_token_ms: { p50: 5 },
      dispatches_per_token: 13,
      submits_per_token: 1,
      bytes_back_per_token: 8,
      bytes_per_token: 1_000_000,
      bandwidth_share: 0.1,
    });
    expect(record.speed?.tokens_per_second.sd).toBeCloseTo(Math.sqrt(200), 9);
    expect(record.speed?.encode_us_per_dispatch).toBeCloseTo(1200 / 260, 9);
  });

  test("as cells has one a column", () => {
    const cells = speedCells(speedRecord(row([90, 110]), subject));
    expect(cells).toHaveLength(SPEED_HEAD.length);
    expect(cells[SPEED_HEAD.indexOf(">t/s")]).toBe("100.00 ± 14.14");
    expect(cells[SPEED_HEAD.indexOf(">of reads")]).toBe("10 %");
  });

  test("that failed has no speed, however fast its first repetitions were", () => {
    const record = speedRecord(row([90, 110], "prefix cache: 48 of 128"), subject);
    expect(record).toMatchObject({ speed: null, error: "prefix cache: 48 of 128" });
    const cells = speedCells(record);
    expect(cells).toHaveLength(SPEED_HEAD.length);
    expect(cells[SPEED_HEAD.indexOf(">t/s")]).toBe("failed");
    expect(cells.join()).not.toContain("100.00");
  });

  test("of a prompt has no time between tokens", () => {
    const prompt = { ...row([100]), kind: "pp" as const, repetitions: [{ ...repetition(100), betweenTokensMs: [] }] };
    const record = speedRecord(prompt, subject);
    expect(record.speed?.between_tokens_ms).toBeNull();
    expect(speedCells(record)).toHaveLength(SPEED_HEAD.length);
  });

  test("that varies is said to", () => {
    expect(noiseOf(speedRecord(row([99, 101]), subject))).toBeUndefined();
    expect(noiseOf(speedRecord(row([90, 110]), subject))).toBe(
      "tg10 of batch 1: varies by 14 %, expected at most 5; is anything else running?",
    );
    expect(noiseOf(speedRecord(row([90, 110], "failed"), subject))).toBeUndefined();
  });

  test("is plain data", () => {
    const record = speedRecord(row([90, 110]), subject);
    expect(JSON.parse(JSON.stringify(record))).toEqual(record);
  });
});
