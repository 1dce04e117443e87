import { describe, expect, test } from "vitest";
import { deviation, mean, median, percentile } from "./statistics.ts";

describe("statistics", () => {
  test("mean and deviation are those of a sample, n − 1 in the denominator", () => {
    expect(mean([2, 4, 4, 4, 5, 5, 7, 9])).toBe(5);
    expect(deviation([2, 4, 4, 4, 5, 5, 7, 9])).toBeCloseTo(Math.sqrt(32 / 7), 12);
    expect(deviation([3])).toBe(0);
  });

  test("percentiles interpolate between neighbours, whatever the order", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(percentile([40, 10, 30, 20], 0)).toBe(10);
    expect(percentile([40, 10, 30, 20], 100)).toBe(40);
    expect(percentile([40, 10, 30, 20], 95)).toBeCloseTo(38.5, 12);
  });

  test("numbers are not sorted as text, and samples are left as they were", () => {
    const samples = [10, 9, 100];
    expect(median(samples)).toBe(10);
    expect(samples).toEqual([10, 9, 100]);
  });

  test.each([mean, deviation, median])("no samples are an error and no number", (of) => {
    expect(() => of([])).toThrow("statistics: no samples, expected at least one");
  });
});
