import { describe, expect, test } from "vitest";
import { fieldsOf } from "../kernels/formats/bit_planes.ts";
import { readScale } from "../kernels/formats/group_scales.ts";
import { BLOCK_ROWS, runIndex } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { loadCode, unpack } from "../kernels/formats/packing.ts";
import { Random } from "../kernels/testbed.ts";
import { expected } from "./matmulOp.ts";
import { randomMatrix } from "./randomMatrix.ts";

describe.each(["affine4", "affine8"] as const)("a random matrix in %s", (name) => {
  const [rows, cols, layout] = [64, 96, layouts[name]];
  const matrix = randomMatrix(new Random(3), name, rows, cols);
  const shape = { rows, cols, group: 32, scaleType: "f16" } as const;

  test("holds the same weights row-major as in blocks", () => {
    const stored = unpack(layout, shape, matrix.stored);
    const { words, scales, biases } = matrix.rowMajor;
    const rowMajor = Float64Array.from({ length: rows * cols }, (_, i) => {
      const [row, column] = [Math.floor(i / cols), i % cols];
      const group = row * 3 + Math.floor(column / 32);
      const run = Math.floor(i / 32) * layout.runWords;
      const words32 = new Uint32Array(layout.runWords * BLOCK_ROWS);
      for (let w = 0; w < layout.runWords; w++) words32[w * BLOCK_ROWS] = words[run + w] ?? 0;
      const code = loadCode(layout, words32, 0, column);
      return (scales[group] ?? Number.NaN) * layout.value(code) + (biases[group] ?? Number.NaN);
    });
    expect(rowMajor).toEqual(stored);
  });

  test("lies in blocks as kernels/formats/layout.ts has it", () => {
    const [field] = fieldsOf(layout.planes, 40 % 32);
    const at = runIndex(layout, cols, 37, 40) + (field?.word ?? Number.NaN) * BLOCK_ROWS;
    const row = matrix.rowMajor.words.subarray(37 * ((cols * layout.runWords) / 32));
    expect(matrix.stored.words[at]).toBe(row[Math.floor((40 * layout.runWords) / 32)]);
    expect(readScale(layout, matrix.stored.scales, shape, 37, 2).scale).toBe(matrix.rowMajor.scales[37 * 3 + 2]);
  });
});

describe("what an op makes of its products", () => {
  const x = new Float32Array(64).fill(2);
  const inverse = 1 / Math.sqrt(4 + 1e-5);

  test("a projection multiplies by the norm's factor", () => {
    const got = expected({ kind: "project", outputs: 32, cols: 32 }, new Float32Array(64).fill(3), x, 2);
    expect(got).toEqual(new Float64Array(64).fill(3 * inverse));
  });

  test("gate and up alternate by blocks of 32 rows", () => {
    const dots = Float32Array.from({ length: 128 }, (_, n) => (Math.floor(n / 32) % 2 === 0 ? 1 : 10 + n));
    const got = expected({ kind: "gateUp", outputs: 128, cols: 64 }, dots, x, 1);
    const gate = inverse / (1 + Math.exp(-inverse));
    expect(got).toHaveLength(64);
    expect(got[0]).toBeCloseTo(gate * 42 * inverse, 10);
    expect(got[33]).toBeCloseTo(gate * 107 * inverse, 10);
  });
});
