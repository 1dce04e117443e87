import { expect, test } from "vitest";
import { PLAIN_SAMPLE, type SampleRecord } from "./caseData.ts";
import { drawn, keptWeights } from "./sample.cases.ts";

// The reference itself, in numbers that one can recompute: probabilities 0.5, 0.25, 0.125, 0.125.
const LOGITS = Float32Array.from([0.25, 0.5, 0.125, 0.125], Math.log);

/** Ids that are left. */
function kept(settings: Partial<SampleRecord>, logits = LOGITS): number[] {
  const weights = keptWeights(logits, { ...PLAIN_SAMPLE, temperature: 1, ...settings });
  return [...weights.keys()].filter((id) => (weights[id] ?? 0) > 0);
}

test("top-k keeps the k best, and what equals the last of them", () => {
  expect(kept({ topK: 1 })).toEqual([1]);
  expect(kept({ topK: 2 })).toEqual([0, 1]);
  expect(kept({ topK: 3 })).toEqual([0, 1, 2, 3]);
  expect(kept({ topK: 0 })).toEqual([0, 1, 2, 3]);
  expect(kept({ topK: 9 })).toEqual([0, 1, 2, 3]);
});

test("top-p keeps the fewest whose mass reaches p, and at least the best", () => {
  expect(kept({ topP: 0 })).toEqual([1]);
  expect(kept({ topP: 0.49 })).toEqual([1]);
  expect(kept({ topP: 0.51 })).toEqual([0, 1]);
  expect(kept({ topP: 0.76 })).toEqual([0, 1, 2, 3]);
});

test("top-p counts what top-k left", () => {
  expect(kept({ topK: 2, topP: 0.65 })).toEqual([1]); // 0.5 of 0.75
  expect(kept({ topK: 2, topP: 0.68 })).toEqual([0, 1]);
});

test("min-p is a share of the best one's probability", () => {
  expect(kept({ minP: 0.3 })).toEqual([0, 1]);
  expect(kept({ minP: 1 })).toEqual([1]);
});

test("temperature comes before top-p and min-p", () => {
  expect(kept({ temperature: 0.5, minP: 0.3 })).toEqual([1]); // ratio 0.25
  expect(kept({ temperature: 2, minP: 0.3 })).toEqual([0, 1, 2, 3]); // ratio 0.5
});

test("both zeros are equal", () => {
  expect(kept({ topK: 1 }, Float32Array.of(-0, 0, -1))).toEqual([0, 1]);
  expect(kept({ topP: 0.1 }, Float32Array.of(-1, 0, -0))).toEqual([1, 2]);
});

test("a draw goes by the order of the ids", () => {
  const weights = Float64Array.of(0, 2, 1, 0, 1);
  expect([0, 0.49, 0.5, 0.74, 0.75, 0.999].map((u) => drawn(weights, u))).toEqual([1, 1, 2, 2, 4, 4]);
});
