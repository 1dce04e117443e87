import { expect, test } from "vitest";
import { speedLine } from "./speedLine.ts";
import type { Part } from "./types.ts";

const part: Part = { choice: 0, index: 63, text: "", token: 1, logprob: -1, finishReason: "length" };
const timings = {
  promptMs: 84,
  generatedMs: 1649,
  firstTokenMs: 84.2,
  promptTokensPerSecond: 142.8,
  tokensPerSecond: 38.21,
};

test("tells the speed in the command's words", () => {
  const usage = { promptTokens: 12, completionTokens: 64, cachedTokens: 0 };
  expect(speedLine({ ...part, usage, timings })).toBe(
    "prompt 12 tok 143 tok/s · generated 64 tok 38.2 tok/s · first token 84 ms",
  );
});

test("names cached tokens, and no rate of a single one", () => {
  const usage = { promptTokens: 40, completionTokens: 1, cachedTokens: 32 };
  expect(speedLine({ ...part, usage, timings: { ...timings, firstTokenMs: 12_345 } })).toBe(
    "prompt 40 tok (32 cached) 143 tok/s · generated 1 tok · first token 12.3 s",
  );
});

test("tells what was stopped", () => {
  const usage = { promptTokens: 12, completionTokens: 3, cachedTokens: 0 };
  expect(speedLine({ usage })).toBe("stopped after 3 tok");
});

test("is empty for a part that is not the last", () => expect(speedLine(part)).toBe(""));
