/** The weight plan: what is claimed, where it goes, and what is refused, from headers alone. */
import { describe, expect, test } from "vitest";
import { paddedRows } from "../kernels/formats/layout.ts";
import { floats, type TinyModel, type TinyShape, tinyFolder, tinyModel } from "../test/tinyModel.ts";
import { ModelFormatError } from "./errors.ts";
import { readConfig } from "./families/registry.ts";
import { planBytes, WeightPlan } from "./weightPlan.ts";
import { openCheckpoint } from "./weights/checkpoint.ts";

async function planOf(model: TinyModel): Promise<WeightPlan> {
  const config = readConfig(model.config);
  return new WeightPlan(await openCheckpoint(tinyFolder(model)), config.quantization);
}

const attn = "model.layers.0.self_attn";
const mlp = "model.layers.0.mlp";
const qkv = [
  { module: `${attn}.q_proj`, rows: 48 },
  { module: `${attn}.k_proj`, rows: 24 },
  { module: `${attn}.v_proj`, rows: 24 },
];
/** 2 heads and one KV head of 24: no part is a whole number of blocks. */
const ragged: TinyShape = { layers: 1, hidden: 64, heads: 2, kvHeads: 1, headDim: 24, intermediate: 80, bias: true };

describe("convolution", () => {
  const name = "model.layers.0.conv.conv.weight";
  const withTaps = (shape: readonly number[]): TinyModel => {
    const model = tinyModel(ragged);
    model.tensors.set(name, floats(new Float32Array(40 * 3), "F32", shape));
    return model;
  };

  test("its taps lie by tap, its groups of channels from a whole block on", async () => {
    const plan = await planOf(withTaps([40, 1, 3]));
    expect(plan.convolution(name, [30, 10], 3)).toEqual({ offset: 0 });
    expect(plan.auxLength).toBe(3 * 64);
    // (channels, taps) in the file: channel 1 begins at element 3, the second group at 90.
    const places = plan.vectors.map(({ from, at, count }) => [count, from(4), at(4), from(0), at(0)]);
    expect(places).toEqual([
      [90, 4, 64 + 1, 0, 0],
      [30, 94, 64 + 32 + 1, 90, 32],
    ]);
  });

  test("MLX's order of dimensions is taken where it is expected, and refused elsewhere", async () => {
    const plan = await planOf(withTaps([40, 3, 1]));
    expect(() => plan.convolution(name, [40], 3)).toThrow(`${name}: shape (40, 3, 1), expected (40, 1, 3)`);
    const other = await planOf(withTaps([40, 3, 1]));
    other.convolution(name, [40], 3, { mlx: true });
    expect(other.vectors[0]?.at(4)).toBe(64 + 1);
  });
});

describe("stacked", () => {
  test("parts stored alike are one matrix, each from a whole block on", async () => {
    const plan = await planOf(tinyModel(ragged));
    const matrices = plan.stacked(qkv, 64);
    expect(matrices).toHaveLength(1);
    expect(matrices[0]).toMatchObject({ layout: "f32", cols: 64, blocks: 4, unit: 1 });
    expect(matrices[0]?.parts.map(({ firstBlock, rows }) => [firstBlock, rows])).toEqual([
      [0, 48],
      [2, 24],
      [3, 24],
    ]);
    const bias = plan.stackedBias(qkv, true);
    expect(bias).toEqual({ offset: 0 });
    expect(plan.auxLength).toBe(128);
    expect(plan.vectors.map(({ at }) => [at(0), at(23)])).toEqual([
      [0, 23],
      [64, 87],
      [96, 119],
    ]);
    expect(plan.stackedBias(qkv, false)).toBeUndefined();
  });

  test("parts stored otherwise become matrices of their own, in order", async () => {
    const model = tinyModel({ ...ragged, bias: false });
    const half = tinyModel({ ...ragged, bias: false, layout: "bf16" }).tensors.get(`${attn}.v_proj.weight`);
    if (half === undefined) throw new Error("no v_proj");
    model.tensors.set(`${attn}.v_proj.weight`, half);
    const matrices = (await planOf(model)).stacked(qkv, 64);
    expect(matrices.map(({ layout, blocks, name }) => [layout, blocks, name])).toEqual([
      ["f32", 3, `${attn}.q_proj + ${attn}.k_proj`],
      ["bf16", 1, `${attn}.v_proj`],
    ]);
  });

  test("a module of its own width is a matrix of its own", async () => {
    const shape: TinyShape = { layers: 1, heads: 2, kvHeads: 1, headDim: 32, layout: "affine4" };
    const model = tinyModel(shape);
    const eight = tinyModel({ ...shape, layout: "affine8" });
    for (const part of ["weight", "scales", "biases"]) {
      const name = `${attn}.v_proj.${part}`;
      const tensor = eight.tensors.get(name);
      if (tensor !== undefined) model.tensors.set(name, tensor);
    }
    model.config.quantization = { group_size: 32, bits: 4, [`${attn}.v_proj`]: { group_size: 32, bits: 8 } };
    const rows = [64, 32, 32];
    const parts = qkv.map(({ module }, i) => ({ module, rows: rows[i] ?? Number.NaN }));
    const matrices = (await planOf(model)).stacked(parts, 64);
    expect(matrices.map(({ layout }) => layout)).toEqual(["affine4", "affine8"]);
  });
});

describe("interleaved", () => {
  test("gate and up alternate by blocks, and so do their biases", async () => {
    const plan = await planOf(tinyModel(ragged));
    const matrices = plan.interleaved(`${mlp}.gate_proj`, `${mlp}.up_proj`, 80, 64);
    expect(matrices).toMatchObject([{ blocks: 6, unit: 2 }]);
    expect(matrices[0]?.parts.map(({ firstBlock, blockStride }) => [firstBlock, blockStride])).toEqual([
      [0, 2],
      [1, 2],
    ]);
    plan.interleavedBias(`${mlp}.gate_proj`, `${mlp}.up_proj`, 80, true);
    expect(plan.auxLength).toBe(2 * paddedRows(80));
    const places = plan.vectors.map(({ at }) => [at(0), at(31), at(32), at(79)]);
    expect(places).toEqual([
      [0, 31, 64, 143],
      [32, 63, 96, 175],
    ]);
  });

  test("two that are stored otherwise are a matrix each, with their biases behind each other", async () => {
    const model = tinyModel(ragged);
    const half = tinyModel({ ...ragged, layout: "f16" }).tensors.get(`${mlp}.up_proj.weight`);
    if (half === undefined) throw new Error("no up_proj");
    model.tensors.set(`${mlp}.up_proj.weight`, half);
    const plan = await planOf(model);
    const matrices = plan.interleaved(`${mlp}.gate_proj`, `${mlp}.up_proj`, 80, 64);
    expect(matrices.map(({ layout, blocks, unit }) => [layout, blocks, unit])).toEqual([
      ["f32", 3, 1],
      ["f16", 3, 1],
    ]);
    expect(matrices.map(({ parts }) => parts.map(({ firstBlock, blockStride }) => [firstBlock, blockStride]))).toEqual([
      [[0, 1]],
      [[0, 1]],
    ]);
    plan.interleavedBias(`${mlp}.gate_proj`, `${mlp}.up_proj`, 80, true);
    expect(plan.vectors.map(({ at }) => [at(0), at(79)])).toEqual([
      [0, 79],
      [96, 175],
    ]);
  });
});

test("experts of several types are f32s, those of one stay as they are", async () => {
  const model = tinyModel({ layers: 1, layout: "bf16" });
  const half = tinyModel({ layers: 1, layout: "f16" }).tensors.get(`${mlp}.up_proj.weight`);
  if (half === undefined) throw new Error("no up_proj");
  model.tensors.set(`${mlp}.up_proj.weight`, half);
  const plan = await planOf(model);
  const gateUp = plan.experts(2, (e) => ({ module: `${mlp}.${e === 0 ? "gate" : "up"}_proj`, rows: 96 }), 96, 64);
  expect(gateUp).toMatchObject({ layout: "f32", blocks: 6 });
  expect(plan.experts(1, () => ({ module: `${mlp}.down_proj`, rows: 64 }), 64, 96).layout).toBe("bf16");
});

describe("finish", () => {
  test("names all that is missing at once", async () => {
    const model = tinyModel(ragged);
    model.tensors.delete(`${attn}.q_proj.weight`);
    model.tensors.delete(`${attn}.v_proj.bias`);
    const plan = await planOf(model);
    plan.stacked(qkv, 64);
    plan.stackedBias(qkv, true);
    const finish = () => plan.finish(() => true);
    expect(finish).toThrow(ModelFormatError);
    expect(finish).toThrow(`${attn}.q_proj.weight`);
    expect(finish).toThrow(`${attn}.v_proj.bias`);
  });

  test("names what one expert lacks, though the others are stored otherwise than what stands for it", async () => {
    const model = tinyModel({ layers: 1, layout: "bf16" });
    model.tensors.delete(`${mlp}.up_proj.weight`);
    const plan = await planOf(model);
    plan.experts(2, (e) => ({ module: `${mlp}.${e === 0 ? "gate" : "up"}_proj`, rows: 96 }), 96, 64);
    expect(() => plan.finish(() => true)).toThrow(`${mlp}.up_proj.weight`);
  });

  test("names what is left over, but for what may be", async () => {
    const plan = await planOf(tinyModel(ragged));
    plan.matrix("lm_head", 97, 64);
    expect(() => plan.finish()).toThrow("model.embed_tokens.weight");
    expect(() => plan.finish((name) => name.startsWith("model."))).not.toThrow();
  });

  test("a width for a module that is not there is refused: it would be the wrong one's", async () => {
    const model = tinyModel({ layers: 1, layout: "affine4" });
    model.config.quantization = { group_size: 32, bits: 4, "language_model.lm_head": { group_size: 32, bits: 8 } };
    const plan = await planOf(model);
    plan.matrix("lm_head", 97, 64);
    expect(() => plan.finish(() => true)).toThrow("quantization names language_model.lm_head");
  });
});

describe("quantized matrices", () => {
  test.each(["F16", "BF16", "F32"] as const)("scales in %s", async (scales) => {
    const plan = await planOf(tinyModel({ layout: "affine4", scales }));
    const scaleType = { F16: "f16", BF16: "bf16", F32: "f32" }[scales];
    expect(plan.matrix("lm_head", 97, 64)).toMatchObject({ layout: "affine4", group: 32, scaleType, blocks: 4 });
    // Words of 4 blocks of 32 rows by 64 columns at 4 bits, and a scale and a bias for each 32 columns.
    expect(planBytes(plan)).toBe(4 * 32 * 32 + 4 * 32 * 2 * (scales === "F32" ? 8 : 4));
  });

  test("a module without scales is a plain one", async () => {
    const model = tinyModel({ layout: "affine8" });
    for (const part of ["scales", "biases"]) model.tensors.delete(`lm_head.${part}`);
    const plainHead = tinyModel({ layout: "bf16" }).tensors.get("lm_head.weight");
    if (plainHead === undefined) throw new Error("no head");
    model.tensors.set("lm_head.weight", plainHead);
    expect((await planOf(model)).matrix("lm_head", 97, 64).layout).toBe("bf16");
  });

  test("columns that are no whole number of groups are refused", async () => {
    const model = tinyModel({ layout: "affine4" });
    model.config.quantization = { group_size: 128, bits: 4 };
    const plan = await planOf(model);
    expect(() => plan.matrix("lm_head", 97, 64)).toThrow("64 columns, expected a multiple of group_size 128");
  });

  test("scales and biases of two types are refused", async () => {
    const model = tinyModel({ layout: "affine4" });
    const other = tinyModel({ layout: "affine4", scales: "BF16" }).tensors.get("lm_head.biases");
    if (other === undefined) throw new Error("no biases");
    model.tensors.set("lm_head.biases", other);
    const plan = await planOf(model);
    expect(() => plan.matrix("lm_head", 97, 64)).toThrow("lm_head.biases: dtype BF16, expected F16");
  });
});
