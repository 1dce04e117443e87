import { describe, expect, test } from "vitest";
import { everyKernel } from "../kernels/kernelList.ts";
import { PERF_HEAD, type PerfRow, perfCells } from "./kernelPerf.ts";
import { perfTitle } from "./perfOp.ts";
import { perfRatios, stepMatmuls } from "./perfRatios.ts";
import { ratioCells } from "./ratios.ts";
import { realOps } from "./realShapes.ts";

const NAMES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"];
const row = (op: string, rows: number, milliseconds: number): PerfRow => ({
  op,
  shape: "960 × 576",
  rows,
  kernels: ["norm_matmul affine4 M=1"],
  copies: 3,
  milliseconds,
  samples_ms: [milliseconds],
  bytes: 1_000_000,
  gb_per_second: 1 / milliseconds,
  gflop_per_second: null,
  g_weight_columns_per_second: null,
  bandwidth_share: 0.5,
  fma_gflop_per_second: 10,
  fma_share: 0.1 * rows,
  naive: { milliseconds: 4 * milliseconds, ratio: 4, nmse: 1e-14 },
});

describe("the table of kernels", () => {
  test("has the time over that of one row, and over the naive kernel's", () => {
    const cells = perfCells([row("qkv_proj", 1, 2), row("qkv_proj", 4, 3)]);
    expect(cells[1]).toHaveLength(PERF_HEAD.length);
    expect(cells[1]?.[PERF_HEAD.indexOf(">t(M)/t(1)")]).toBe("1.50");
    expect(cells[1]?.[PERF_HEAD.indexOf(">× naive")]).toBe("4.0");
  });

  test("adds up a step only where all of its matmuls were measured", () => {
    const sum = 4 * 30 * 2 + 2;
    expect(stepMatmuls(NAMES.map((name) => row(name, 1, 2)))).toEqual([
      { rows: 1, milliseconds: sum, naiveMilliseconds: 4 * sum },
    ]);
    expect(stepMatmuls(NAMES.slice(1).map((name) => row(name, 1, 2)))).toEqual([]);
  });
});

describe("ratios", () => {
  const all = [1, 4, 8].flatMap((rows) => NAMES.map((name) => row(name, rows, 1 + rows / 4)));

  test("are of the sums over a step, and say whether they hold", () => {
    const tiles = NAMES.slice(0, 4).map((name) => ({ ...row(name, 64, 5), fma_share: 0.25 }));
    expect(ratioCells(perfRatios([...all, ...tiles]))).toEqual([
      ["a step's matmuls, one row: rate over the naive kernel's", "4.00", "≥ 3.5", "holds"],
      ["a step's matmuls, 4 rows over 1: time", "1.60", "≤ 2", "holds"],
      ["a step's matmuls, 8 rows over 1: time", "2.40", "≤ 3.5", "holds"],
      ["a prompt's matmuls, 64 rows: share of the adapter's fma rate", "0.25", "≥ 0.5", "missed"],
    ]);
  });

  test("are left out where a matmul was not measured", () => {
    expect(perfRatios(all.filter(({ op, rows }) => op !== "lm_head" || rows > 1))).toEqual([]);
  });
});

describe("real shapes", () => {
  test("have titles of their own", () => {
    const titles = realOps().map(perfTitle);
    expect(new Set(titles).size).toBe(titles.length);
    expect(titles).toContain("gate_up_proj 3072 × 576 affine4/32 M=8");
  });

  test("count the bytes of weights and scales", () => {
    const [qkv] = realOps();
    expect(qkv?.bytes).toBe((960 * 576) / 2 + ((960 * 576) / 32) * 4);
    expect(qkv?.flops).toBe(2 * 960 * 576);
  });

  test("no kernel of the benchmark is taken for one of a model", () => {
    expect(everyKernel().filter(({ name }) => /naive|_rate/.test(name))).toEqual([]);
  });
});
