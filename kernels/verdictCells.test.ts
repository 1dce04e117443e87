/** A kernel's cases in a row of a table. */
import { expect, test } from "vitest";
import type { Verdict } from "./testbed.ts";
import { verdictCells } from "./verdictCells.ts";

const verdict = (error: number, limit: number, passed = true): Verdict => ({
  title: "norm a",
  kernel: "norm",
  passed,
  why: "",
  error,
  limit,
  milliseconds: 1.4,
});

test("the worst case is the one that used up most of its limit", () => {
  const cases = [verdict(1e-7, 1e-6), verdict(2e-9, 1e-8), verdict(5e-7, 1e-5)];
  expect(verdictCells("norm", cases)).toEqual(["norm", "3", "3", "2.0e-9", "1e-8", "4"]);
});

test("cases of equal bits say so, and one that is no number is the worst", () => {
  expect(verdictCells("norm", [verdict(0, 0)])).toEqual(["norm", "1", "1", "equal", "equal", "1"]);
  expect(verdictCells("norm", [verdict(0, 0), verdict(2, 0, false)]).slice(2, 5)).toEqual(["1", "differs", "equal"]);
  expect(verdictCells("norm", [verdict(1, 1e-6, false), verdict(Number.NaN, 1e-6, false)])[3]).toBe("NaN");
});
