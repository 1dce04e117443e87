import { describe, expect, test } from "vitest";
import type { Peer } from "./peer.ts";
import { byTurns, matmulTable, peerTable } from "./peerReport.ts";

const COUNTS = { prompt: 10, tokens: 2, rounds: 3 };
const answer = (promptMs: number, decodeMs: number, tokens: readonly number[]) => ({ promptMs, decodeMs, tokens });

describe("the table of peers", () => {
  test("has rates of the median round, ratios to the first engine, and how far tokens are equal", () => {
    const fast = [answer(100, 20, [1, 2, 3]), answer(900, 10, [4, 5, 6]), answer(100, 20, [7, 8, 9])];
    const slow = [answer(200, 80, [1, 2, 3]), answer(200, 80, [4, 0, 6]), answer(200, 80, [7, 8, 9])];
    const { text, agreed } = peerTable(
      [
        { name: "ours", answers: fast },
        { name: "theirs", answers: slow },
      ],
      COUNTS,
    );
    expect(text.split("\n").slice(2)).toEqual([
      "| ours | 100.0 | 1.00 | 100.00 | 1.00 | 9 of 9 |",
      "| theirs | 50.0 | 2.00 | 25.00 | 4.00 | 7 of 9 |",
      "",
    ]);
    expect(agreed).toBe(true);
  });

  test("an engine that begins otherwise does not agree", () => {
    const one = { name: "a", answers: [answer(1, 1, [1, 2])] };
    expect(peerTable([one, { name: "b", answers: [answer(1, 1, [3, 2])] }], COUNTS).agreed).toBe(false);
  });
});

test("engines take turns on the same prompts, and the warm-up is in no number", async () => {
  const asked: string[] = [];
  const peer = (name: string): Peer => ({
    name,
    answer: async (prompt, tokens) => {
      asked.push(`${name} ${prompt.join()} ${tokens}`);
      return answer(1, 1, [0]);
    },
    close: async () => {},
  });
  const measured = await byTurns([peer("a"), peer("b")], 50, { prompt: 3, tokens: 2, rounds: 2 }, () => {});
  expect(measured.map(({ answers }) => answers.length)).toEqual([2, 2]);
  expect(asked.map((it) => it[0]).join("")).toBe("ababab");
  expect(asked.filter((_, i) => i % 2 === 0).map((it) => it.slice(2))).toEqual(
    asked.filter((_, i) => i % 2 === 1).map((it) => it.slice(2)),
  );
  expect(new Set(asked.map((it) => it.slice(2))).size).toBe(3);
});

test("matmuls have their ratio", () => {
  expect(matmulTable([{ rows: 8, ingleMs: 2, naiveMs: 5, gpuJsMs: 9 }])).toContain(
    "| 8 | 2.000 | 5.000 | 9.000 | 4.5 |",
  );
});
