import { describe, expect, test } from "vitest";
import type { ModelConfig } from "../models/config.ts";
import type { Matrix } from "../models/matrix.ts";
import { bytesPerToken, modelBytes } from "./modelBytes.ts";
import { type SpeedTest, speedTests, testName, tgTokens } from "./speedTest.ts";

const matrix = (name: string, blocks: number): Matrix => {
  const storage = { layout: "affine4", group: 32, scaleType: "f16" } as const;
  return { name, cols: 64, blocks, unit: 1, parts: [], shards: [], ...storage };
};
/** Of a block of 32 rows and 64 columns: 4 bits a weight, and a word of scale and bias every 32 columns. */
const BLOCK = 32 * 64 * 0.5 + 32 * 2 * 4;
const speedTest = (fields: Partial<SpeedTest>): SpeedTest => ({
  kind: "tg",
  tokens: 32,
  depth: 0,
  batch: 1,
  ...fields,
});

describe("bytes of a model", () => {
  const matrices = [
    matrix("model.embed_tokens", 100),
    matrix("model.layers.0.mlp.down_proj", 3),
    matrix("lm_head", 10),
  ];
  const of = (tie_word_embeddings: boolean, list: readonly Matrix[]) =>
    modelBytes(
      { config: { tie_word_embeddings } as ModelConfig, weights: { matrices: [...list] } },
      { kvBytesPerToken: 7, states: 30, sequences: 6 },
    );

  test("leave the embedding out, from which rows are only gathered", () => {
    expect(of(false, matrices)).toEqual({ layers: 3 * BLOCK, head: 10 * BLOCK, kvToken: 7, states: 5 });
  });

  test("count it where it is the head too", () => {
    expect(of(true, matrices.slice(0, 2))).toEqual({ layers: 3 * BLOCK, head: 100 * BLOCK, kvToken: 7, states: 5 });
  });
});

describe("bytes a token", () => {
  const bytes = { layers: 1000, head: 200, kvToken: 4, states: 0 };

  test("of generation are the weights, shared by the batch, and the keys that a step sees", () => {
    expect(bytesPerToken(bytes, speedTest({ tokens: 1 }), 64)).toBe(1200 + 2 * 4);
    expect(bytesPerToken(bytes, speedTest({ tokens: 3, depth: 100, batch: 4 }), 64)).toBe(300 + 102 * 4);
  });

  test("of a prompt are shared by the rows of a step", () => {
    const keys = 64 + 128;
    expect(bytesPerToken(bytes, speedTest({ kind: "pp", tokens: 128 }), 64)).toBe((2000 + 200 + keys * 4) / 128);
    const deep = bytesPerToken(bytes, speedTest({ kind: "pp", tokens: 128, depth: 10, batch: 2 }), 64);
    expect(deep).toBe((4000 + 400 + 2 * (keys + 20) * 4) / 256);
  });

  test("count states once a step and sequence", () => {
    const kept = { ...bytes, kvToken: 0, states: 6 };
    expect(bytesPerToken(kept, speedTest({ tokens: 3, batch: 4 }), 64)).toBe(300 + 6);
    expect(bytesPerToken(kept, speedTest({ kind: "pp", tokens: 128 }), 64)).toBe((2000 + 200 + 2 * 6) / 128);
  });
});

describe("tests", () => {
  test("are all combinations, without those of 0 tokens", () => {
    const tests = speedTests({ prompts: [128, 0], generated: [32], depths: [0, 64], batches: [1, 4] });
    expect(tests.map((it) => `${testName(it)}/${it.batch}`)).toEqual([
      "pp128/1",
      "tg32/1",
      "pp128@d64/1",
      "tg32@d64/1",
      "pp128/4",
      "tg32/4",
      "pp128@d64/4",
      "tg32@d64/4",
    ]);
  });

  test("of generation ask for a token before and one behind those that are timed", () => {
    expect(tgTokens(speedTest({ depth: 1000 }), 64)).toBe(34);
    expect(tgTokens(speedTest({ depth: 1000, batch: 4 }), 64)).toBe(34 + Math.ceil(4000 / 60));
  });
});
