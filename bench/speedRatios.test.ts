import { describe, expect, test } from "vitest";
import { ratioCells } from "./ratios.ts";
import { speedRatios } from "./speedRatios.ts";
import { type SpeedRecord, type SpeedSubject, speedRecord } from "./speedReport.ts";
import { testName } from "./speedTest.ts";

const subject: SpeedSubject = {
  model: "m",
  size: 1,
  params: 1,
  weights: "affine4/32",
  kv: "f16",
  adapter: "a",
  bytes: { layers: 900, head: 100, kvToken: 1, states: 0 },
  rowsPerStep: 64,
  bandwidth: 1e6,
};

function record(
  kind: "pp" | "tg",
  tokens: number,
  depth: number,
  tokensPerSecond: number,
  batch = 1,
  drafted = false,
): SpeedRecord {
  const repetition = {
    milliseconds: 1,
    tokensPerSecond,
    computedTokens: 1,
    cachedTokens: 0,
    firstTokenMs: [1],
    betweenTokensMs: kind === "pp" ? [] : [1000 / tokensPerSecond],
    dispatches: 1,
    submits: 1,
    bytesBack: 8,
    encodeMs: 0.1,
  };
  const shared = { kind, tokens, depth, batch, drafted };
  return speedRecord({ ...shared, name: testName(shared), repetitions: [repetition], error: null }, subject);
}

const step = { dispatches: 13, matmuls: 9, stepMs: 11, matmulsMs: 10, ratio: 1.1, encodeUs: 2.5 };

describe("ratios of a model", () => {
  test("compare a step with its matmuls, prompts with generation, and depths with their bytes", () => {
    const all = [record("pp", 128, 0, 200), record("tg", 2, 0, 80), record("tg", 2, 1000, 25)];
    expect(ratioCells(speedRatios(all, step))).toEqual([
      ["a decode step's 13 dispatches over its 9 matmuls alone: time", "1.10", "≤ 1.25", "holds"],
      ["encoding a decode step: µs of the CPU a dispatch", "2.50", "≤ 3", "holds"],
      ["a token of tg2 over its 9 matmuls alone: time", "1.25", "≤ 1.25", "holds"],
      ["pp128 over tg2: tokens a second", "2.50", "≥ 2.5", "holds"],
      ["tg2@d1000 over tg2: bytes read a second", "0.62", "1 ± 0.25", "missed"],
    ]);
  });

  test("compare generation with proposals to that without, and nothing else to it", () => {
    const all = [record("tg", 2, 0, 80), record("tg", 2, 0, 100, 1, true), record("pp", 128, 0, 200)];
    expect(ratioCells(speedRatios(all, undefined))).toEqual([
      ["pp128 over tg2: tokens a second", "2.50", "≥ 2.5", "holds"],
      ["tg2+draft over tg2: tokens a second", "1.25", "≥ 1", "holds"],
    ]);
  });

  test("are of one request at a time, and of rows that did not fail", () => {
    const failed = speedRecord(
      { kind: "tg", tokens: 2, depth: 0, batch: 1, name: "tg2", repetitions: [], error: "no" },
      subject,
    );
    expect(speedRatios([failed, record("tg", 2, 0, 80, 4), record("pp", 128, 0, 200)], undefined)).toEqual([]);
  });
});
