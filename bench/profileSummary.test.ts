import { describe, expect, test } from "vitest";
import type { ProfiledStep } from "../device/profiler.ts";
import { chosenCells, chosenCounts } from "./chosenExperts.ts";
import { chromeTrace, placeOf } from "./chromeTrace.ts";
import { profileCells, profileGroups } from "./profileSummary.ts";

const bound = [
  { label: "model.layers.0.mlp words", bytes: 900 },
  { label: "model.layers.0.mlp scales", bytes: 100 },
  { label: "norms and biases", bytes: 4000 },
];
const dispatch = (label: string, begin: number, end: number) => {
  return { label, kernel: "k", grid: [2, 3, 1] as const, bound, begin, end };
};
const step = (during: string, at: number): ProfiledStep => ({
  during,
  title: "1 row, 1 sample",
  dispatches: [
    dispatch("embed_tokens", at, at + 10),
    dispatch("layers.0 mlp", at + 12, at + 32),
    dispatch("layers.1 mlp", at + 32, at + 62),
  ],
  experts: [],
});

describe("a profile's table", () => {
  test("has every nanosecond of its steps and of what is before them, by op", () => {
    const [group, ...others] = profileGroups([step("tg", 0), step("tg", 100)]);
    expect(others).toEqual([]);
    expect(group?.steps).toBe(2);
    expect(group?.lines.map(({ op, dispatches, milliseconds }) => [op, dispatches, milliseconds * 1e6])).toEqual([
      ["mlp", 4, 100],
      ["embed_tokens", 2, 20],
      ["(between dispatches)", 4, 4],
      ["(before the step)", 2, 38],
    ]);
    expect(group?.lines.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
  });

  test("counts weights where a matrix is read whole", () => {
    const [group] = profileGroups([step("tg", 0)]);
    expect(group?.lines.map(({ op, weightBytes }) => [op, weightBytes]).slice(0, 2)).toEqual([
      ["mlp", 2000],
      ["embed_tokens", 0],
    ]);
    expect(profileCells(group?.lines ?? [])[0]).toEqual(["mlp", "2", "0.00", "80.6 %", "0.0", "40.00"]);
  });

  test("keeps tests apart, and what is between them out", () => {
    const groups = profileGroups([step("pp", 0), step("tg", 1000)]);
    expect(groups.map(({ title, milliseconds }) => [title, milliseconds * 1e6])).toEqual([
      ["pp: 1 row, 1 sample", 62],
      ["tg: 1 row, 1 sample", 62],
    ]);
  });
});

describe("a trace", () => {
  test("has an event a dispatch in µs, with its layer and op, and one a step above them", () => {
    const { traceEvents } = chromeTrace([step("tg", 2000)], {});
    const slices = traceEvents.filter(({ ph }) => ph === "X");
    expect(slices.map(({ name, ts, dur, tid }) => [name, ts, dur, tid])).toEqual([
      ["1 row, 1 sample", 2, 0.062, 1],
      ["embed_tokens", 2, 0.01, 2],
      ["layers.0 mlp", 2.012, 0.02, 2],
      ["layers.1 mlp", 2.032, 0.03, 2],
    ]);
    expect(slices[3]?.args).toEqual({
      step: 0,
      layer: 1,
      op: "mlp",
      kernel: "k",
      grid: "2 × 3 × 1",
      weight_bytes: 1000,
    });
  });

  test.each([
    ["layers.12 qkv_proj", { layer: 12, op: "qkv_proj" }],
    ["lm_head", { layer: undefined, op: "lm_head" }],
  ])("%s is found in the model", (label, place) => expect(placeOf(label)).toEqual(place));
});

describe("experts that were chosen", () => {
  const routed = (title: string, experts: number[][]): ProfiledStep => ({ ...step("run", 0), title, experts });
  const steps = [
    routed("2 rows", [
      [0, 2, 2, 1],
      [3, 0, 3, 1],
    ]),
    routed("1 row", [
      [2, 0],
      [3, 1],
    ]),
    routed("draft: 1 row", [[1, 1]]),
  ];

  test("are counted by mixture, a draft's left out", () => {
    expect(chosenCounts(steps, 4)).toEqual([
      [2, 1, 3, 0],
      [1, 2, 0, 3],
    ]);
    expect(chosenCounts([step("run", 0)], 4)).toEqual([]);
  });

  test("are shown in order, or the most chosen of many", () => {
    expect(chosenCells(chosenCounts(steps, 4))).toEqual([
      ["0", "6", "1", "2 1 3 0"],
      ["1", "6", "1", "1 2 0 3"],
    ]);
    const many = chosenCells(chosenCounts(steps, 40));
    expect(many[0]).toEqual(["0", "6", "37", "2: 3, 0: 2, 1: 1, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0, 9: 0, …"]);
  });
});
