/** Every checkpoint format against the reference libraries: the weights that a plan reads are theirs, bit for bit. */
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { formatFixtures, planFixture } from "../../test/formatFixtures.ts";
import { onePacking, planQuantized, type QuantizedModule, quantizedModules } from "../../test/quantizedModules.ts";
import { planSliced, slicedPlans } from "../../test/slicedPlans.ts";
import { storedWeights } from "../../test/storedWeights.ts";
import type { Matrix } from "../matrix.ts";

/** All weights of a matrix, part by part. */
async function weightsOf(matrix: Matrix): Promise<Float32Array<ArrayBuffer>> {
  const parts = await Promise.all(matrix.parts.map((part) => storedWeights(matrix, part)));
  return new Float32Array(parts.flatMap((values) => [...values]));
}

describe.each(Object.entries(formatFixtures))("%s", (name, { modules }) => {
  test("has the reference's weights, and nothing left over", async () => {
    const { checkpoint, plan, matrices } = await planFixture(name);
    plan.finish((tensor) => tensor.startsWith("dequantized."));
    for (const [i, { module, sha256, values }] of modules.entries()) {
      const matrix = matrices[i];
      if (matrix === undefined) throw new Error(module);
      const got = await weightsOf(matrix);
      if (values !== true) {
        expect(createHash("sha256").update(new Uint8Array(got.buffer)).digest("hex")).toBe(sha256);
        continue;
      }
      const want = new Float32Array((await checkpoint.read(`dequantized.${module}`)).slice().buffer);
      const apart = got.map((value, at) => Math.abs(value / (want[at] ?? Number.NaN) - 1));
      expect(got.filter((value, at) => value !== want[at]).length).toBeGreaterThan(0); // else it is exact, and need not be here
      expect(Math.max(...apart.filter((_, at) => want[at] !== 0))).toBeLessThan(2 ** -23);
      expect(got.filter((value, at) => want[at] === 0 && value !== 0)).toEqual(new Float32Array());
    }
    await checkpoint.close();
  });
});

describe("other shapes", () => {
  test.each(quantizedModules.map((it) => [it.name, it] as const))("%s", async (_, module) => {
    const { matrix } = await planQuantized(module);
    const got = await weightsOf(matrix);
    const want = got.map((_value, i) => module.weight(Math.floor(i / module.cols), i % module.cols));
    const order = matrix.order ?? Uint32Array.from({ length: module.cols }, (_value, i) => i);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: module.cols }, (_value, i) => i));
    const wrong = got.findIndex((value, i) => value !== want[i]);
    expect({ wrong, got: got[wrong], want: want[wrong] }).toEqual({ wrong: -1 });
  });
});

describe("parts of tensors", () => {
  test.each(slicedPlans.map((it) => [it.name, it] as const))("%s", async (_, sliced) => {
    const { matrix } = await planSliced(sliced);
    const places: number[] = [];
    for (const [p, part] of matrix.parts.entries()) {
      const got = await storedWeights(matrix, part);
      const { cols } = matrix;
      expect(got).toEqual(got.map((_value, i) => sliced.weight(p, Math.floor(i / cols), i % cols)));
      for (let block = 0; block < Math.ceil(part.rows / 32); block++)
        places.push(part.firstBlock + block * part.blockStride);
    }
    expect(places.sort((a, b) => a - b)).toEqual(Array.from({ length: matrix.blocks }, (_value, i) => i)); // each block once
  });

  test("a slice past its tensor, or a tensor taken twice whole, is a fault of the family's file", async () => {
    const { plan } = await planSliced({
      name: "",
      shape: [4, 8],
      matrix: (it) => it.matrix("x", 4, 8, { weight: "x" }),
      weight: () => 0,
    });
    expect(() => plan.matrix("y", 4, 8, { slice: { first: 1, of: 4 } })).toThrow("rows 1 to 4 of 4");
    expect(() => plan.matrix("x", 4, 8, { weight: "x" })).toThrow("x is taken twice, expected once or by slices");
  });
});

test("one module in another packing is the same weights in the same layout", async () => {
  const all = await Promise.all(
    onePacking().map(async (module) => {
      const { matrix } = await planQuantized(module);
      const { layout, group, scaleType, blocks } = matrix;
      return { layout, group, scaleType, blocks, weights: await weightsOf(matrix) };
    }),
  );
  for (const other of all) expect(other).toEqual(all[0]);
});

describe("what is wrong is named", () => {
  const some = quantizedModules.filter((_, i) => i % 3 === 0);
  test.each(some.map((it) => [it.name, it] as const))("a tensor that is missing: %s", async (_, module) => {
    for (const missing of module.tensors.keys()) {
      if (missing === "g_idx") continue; // which may be left out
      const tensors = new Map([...module.tensors].filter(([name]) => name !== missing));
      await expect(planQuantized({ ...module, tensors })).rejects.toThrow(
        new RegExp(`lacks .*up_proj\\.${missing}\\b`),
      );
    }
  });

  test.each(some.map((it) => [it.name, it] as const))("a tensor of another shape: %s", async (_, module) => {
    const { rows } = module;
    await expect(planQuantized({ ...module, rows: rows + 32 })).rejects.toThrow(
      /model\.layers\.0\.mlp\.up_proj\.\S+: .*expected/,
    );
  });

  const nested = quantizedModules.find(({ tensors }) => tensors.has("weight.nested_absmax"));
  const int8: QuantizedModule = {
    name: "int8",
    rows: 8,
    cols: 16,
    config: { quantization_config: { quant_method: "bitsandbytes", load_in_8bit: true } },
    tensors: new Map([
      ["weight", { dtype: "I8", shape: [8, 16], bytes: new Uint8Array(128) }],
      ["SCB", { dtype: "F32", shape: [8], bytes: new Uint8Array(32) }],
    ]),
    weight: () => 0,
  };
  test.each([
    [nested, "weight.nested_absmax"],
    [nested, "weight.nested_quant_map"],
    [int8, "SCB"],
  ] as const)("scales that are too few: %#", async (module, name) => {
    const scales = module?.tensors.get(name);
    if (module === undefined || scales === undefined) throw new Error(name);
    const [count = 0] = scales.shape;
    const fewer = { ...scales, shape: [count - 1], bytes: scales.bytes.slice(0, scales.bytes.length - 4) };
    const changed = planQuantized({ ...module, tensors: new Map([...module.tensors, [name, fewer]]) });
    await expect(changed).rejects.toThrow(`up_proj.${name}: shape (${count - 1}), expected (${count})`);
  });

  test("a group that is not there, and groups of other sizes", async () => {
    const module = quantizedModules.find(({ name }) => name.includes("act-order"));
    const g_idx = module?.tensors.get("g_idx");
    if (module === undefined || g_idx === undefined) throw new Error("no module with g_idx");
    const changed = (index: number, group: number) => {
      const groups = new Int32Array(g_idx.bytes.slice().buffer);
      groups[index] = group;
      const bytes = new Uint8Array(groups.buffer);
      return planQuantized({ ...module, tensors: new Map([...module.tensors, ["g_idx", { ...g_idx, bytes }]]) });
    };
    await expect(changed(5, 99)).rejects.toThrow("up_proj.g_idx: element 5 is 99, expected a group from 0 to 2");
    await expect(changed(5, -1)).rejects.toThrow("up_proj.g_idx: element 5 is -1");
    const first = new Int32Array(g_idx.bytes.slice().buffer)[5] ?? 0;
    await expect(changed(5, (first + 1) % 3)).rejects.toThrow(/g_idx: group \d has 6[35] columns, expected 64 in each/);
  });

  const ordered = quantizedModules.filter(
    ({ tensors }) => tensors.has("g_idx") || tensors.get("weight_packed")?.dtype === "I32",
  );
  test.each(ordered.map((it) => [it.name, it] as const))(
    "groups of columns as other numbers: %s",
    async (_, module) => {
      const name = module.tensors.has("g_idx") ? "g_idx" : "weight_g_idx";
      const { cols } = module;
      for (const [dtype, count, size] of [
        ["F32", cols, 4],
        ["U8", cols - 1, 1], // no whole number of I32s
      ] as const) {
        const tensors = new Map([
          ...module.tensors,
          [name, { dtype, shape: [count], bytes: new Uint8Array(count * size) }],
        ]);
        const words = `up_proj.${name}: dtype ${dtype}, expected I32 or U32`;
        await expect(planQuantized({ ...module, tensors })).rejects.toThrow(words);
      }
    },
  );
});

test("scales that blocks share are a row's own where a slice does not begin at a block", async () => {
  const module = quantizedModules.find(({ name }) => name.startsWith("fp8 by 128"));
  if (module === undefined) throw new Error("no fp8 module");
  const { rows, cols } = module;
  for (const [first, shared] of [
    [64, true],
    [50, undefined],
  ] as const) {
    const { plan, matrix } = await planQuantized(module, (it, path) => {
      const slice = (from: number, count: number) => ({ module: path, rows: count, slice: { first: from, of: rows } });
      const matrices = it.stacked([slice(0, first), slice(first, rows - first)], cols);
      return matrices.at(-1) ?? it.matrix(path, rows, cols);
    });
    expect(matrix.sharedRows).toBe(shared);
    expect(plan.matrices).toHaveLength(shared ? 1 : 2); // stored in two ways
    const part = matrix.parts.at(-1);
    if (part === undefined) throw new Error("no part");
    const got = await storedWeights(matrix, part);
    expect(got).toEqual(got.map((_value, i) => module.weight(first + Math.floor(i / cols), i % cols)));
  }
});

test("some columns of a module with a scale a row are one group of their own matrix", async () => {
  const module = quantizedModules.find(
    ({ name, cols }) => name.startsWith("gptq") && name.includes("of -1") && cols >= 96,
  );
  if (module === undefined) throw new Error("no module with a scale a row");
  const { rows, cols } = module;
  const columns = { first: 32, count: 64, of: cols };
  const { matrix } = await planQuantized(module, (it, path) => it.matrix(path, rows, 64, { columns }));
  expect(matrix).toMatchObject({ cols: 64, group: 64 });
  const got = await weightsOf(matrix);
  expect(got).toEqual(got.map((_value, i) => module.weight(Math.floor(i / 64), 32 + (i % 64))));
});

test("experts with columns sorted by group are f32s, each in its own order", async () => {
  const module = quantizedModules.find(({ name }) => name.includes("act-order"));
  if (module === undefined) throw new Error("no module with act-order");
  const { rows, cols } = module;
  const { matrix } = await planQuantized(module, (it, path) =>
    it.experts(1, () => ({ module: path, rows }), rows, cols),
  );
  expect([matrix.layout, matrix.order]).toEqual(["f32", undefined]);
  const got = await weightsOf(matrix);
  expect(got).toEqual(got.map((_value, i) => module.weight(Math.floor(i / cols), i % cols)));
});
