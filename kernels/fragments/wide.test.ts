import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { activationShape } from "./activation.ts";
import { dotParams } from "./matmul.ts";
import { isWide, lanesOf, partsOf, split, type Unit } from "./wide.ts";

const dotOf = (cols: number, group: number) =>
  dotParams({ layout: "e2m1", cols, group, scaleType: "e8m0" }, activationShape(1, cols), true);

describe("parts of a matrix", () => {
  test.each([
    ["o_proj of 4096", 128, 4096, "block", 8],
    ["a head of 49,152 rows", 1536, 576, "block", 4],
    ["a head of 131,072 rows", 4096, 4096, "block", 1],
    ["gate and up of 4096 × 11,008", 688, 4096, "pair", 4],
    ["q, k and v of 576", 30, 576, "block", 4],
    ["a short one", 3, 255, "block", 1],
    ["one of twice the least columns", 3, 256, "block", 2],
  ] as const)("%s: %i blocks of %i columns, a %s at a time: %i", (_, blocks, cols, unit, parts) =>
    expect(partsOf({ blocks, cols }, unit)).toBe(parts),
  );

  test("have every group once, in whole runs of 32 columns", () => {
    const shapes = fc.record({
      cols: fc.integer({ min: 1, max: 9000 }),
      group: fc.constantFrom(8, 16, 32, 64, 96, 128, 4096),
      parts: fc.constantFrom(1, 2, 4, 8),
    });
    fc.assert(
      fc.property(shapes, ({ cols, group, parts }) => {
        const dot = dotOf(cols, group);
        const { params } = split("wide", dot, parts, 5, "block");
        expect(2 ** params.part_bits).toBe(parts);
        expect(params.part_groups * parts).toBeGreaterThanOrEqual(dot.groups);
        expect(params.part_groups * group).toBe(params.part_runs * 32);
        expect((params.part_groups * group - Math.max(32, group)) * parts).toBeLessThan(dot.groups * group);
      }),
    );
  });
});

describe("a launch", () => {
  test("has a workgroup a unit where it is not wide", () =>
    expect(split("storage", dotOf(64, 32), 1, 7, "block").workgroups).toBe(7));

  test.each([
    ["block", 1, 9, 2],
    ["block", 4, 9, 5],
    ["block", 8, 9, 9],
    ["pair", 1, 9, 3],
    ["pair", 4, 9, 9],
  ] as readonly (readonly [Unit, number, number, number])[])(
    "of %ss in %i parts: %i are %i workgroups",
    (unit, parts, units, count) => expect(split("wide", dotOf(64, 32), parts, units, unit).workgroups).toBe(count),
  );

  test("narrow ways are wide, as they are for GPUs", () => {
    expect((["storage", "broadcast", "broadcast4", "wide", "bytes", "halves"] as const).filter(isWide)).toEqual([
      "wide",
      "bytes",
      "halves",
    ]);
    expect([lanesOf("storage"), lanesOf("wide")]).toEqual([8, 64]);
  });
});
