/** Weights on the GPU, read back: each layout's words and scales are what the CPU packs. */
import { describe, expect, test } from "vitest";
import { readBuffer } from "../device/readback.ts";
import { bf16FromBits, f16FromBits } from "../kernels/formats/halves.ts";
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { unpack } from "../kernels/formats/packing.ts";
import { sharedDevice } from "../test/sharedDevice.ts";
import { bitsOf, type TinyModel, type TinyShape, type TinyTensor, tinyFolder, tinyModel } from "../test/tinyModel.ts";
import { allocateWeights, freeWeights, shardBlocks } from "./allocateWeights.ts";
import { llama } from "./families/llama.ts";
import { readConfig } from "./families/registry.ts";
import { loadWeights } from "./loadWeights.ts";
import type { Matrix, Part } from "./matrix.ts";
import { WeightPlan } from "./weightPlan.ts";
import { openCheckpoint } from "./weights/checkpoint.ts";

const { gpu, pipelines } = await sharedDevice();

/** One number of a tensor on the CPU. */
function read({ dtype, bytes }: TinyTensor, index: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "F32") return view.getFloat32(4 * index, true);
  if (dtype === "U32") return view.getUint32(4 * index, true);
  const bits = view.getUint16(2 * index, true);
  return dtype === "F16" ? f16FromBits(bits) : bf16FromBits(bits);
}

/** The weight of (row, column), as the checkpoint's format defines it. */
function weightsOf(model: TinyModel, part: Part, { cols, group }: Matrix, bits: number) {
  const tensor = (name: string) => {
    const found = model.tensors.get(`${part.module}.${name}`);
    if (found === undefined) throw new RangeError(`${part.module}: no ${name}`);
    return found;
  };
  const weight = tensor("weight");
  if (part.params.length === 0) return (row: number, column: number) => read(weight, row * cols + column);
  const [words, scales, biases] = [new Uint32Array(weight.bytes.slice().buffer), tensor("scales"), tensor("biases")];
  return (row: number, column: number) => {
    let code = 0; // a row is one stream of bits
    for (let i = 0; i < bits; i++) {
      const bit = (row * cols + column) * bits + i;
      code |= (((words[Math.floor(bit / 32)] ?? Number.NaN) >>> (bit % 32)) & 1) << i;
    }
    const g = row * (cols / group) + Math.floor(column / group);
    return read(scales, g) * code + read(biases, g);
  };
}

/** Every stored row of a matrix, from all of its shards. */
async function rowsOf(matrix: Matrix): Promise<number[][]> {
  const rows: number[][] = [];
  for (const { blocks, words, scales } of matrix.shards) {
    const shape = { ...matrix, rows: blocks * BLOCK_ROWS };
    const packed = {
      words: new Uint32Array((await readBuffer(gpu, words)).buffer),
      scales: scales === undefined ? new Uint32Array(0) : new Uint32Array((await readBuffer(gpu, scales)).buffer),
    };
    const values = unpack(layouts[matrix.layout], shape, packed);
    for (let row = 0; row < shape.rows; row++)
      rows.push(Array.from(values.subarray(row * matrix.cols, (row + 1) * matrix.cols)));
  }
  return rows;
}

async function planOf(model: TinyModel): Promise<WeightPlan> {
  const config = readConfig(model.config);
  const plan = new WeightPlan(await openCheckpoint(tinyFolder(model)), config.quantization);
  llama.build(plan, config);
  plan.finish();
  return plan;
}

/** Where a part's row is stored. */
const storedRow = ({ firstBlock, blockStride }: Part, row: number) =>
  (firstBlock + Math.floor(row / BLOCK_ROWS) * blockStride) * BLOCK_ROWS + (row % BLOCK_ROWS);

async function check(shape: TinyShape, on: typeof gpu): Promise<number> {
  const model = tinyModel({ layers: 1, ...shape });
  const plan = await planOf(model);
  const bits = bitsOf(shape.layout ?? "f32");
  const aux = await allocateWeights(on, plan);
  await loadWeights(on, pipelines, plan, aux);
  try {
    for (const matrix of plan.matrices) {
      const got = await rowsOf(matrix);
      const want = got.map((row) => row.map(() => 0)); // padding rows are zeros
      for (const part of matrix.parts) {
        const weight = weightsOf(model, part, matrix, bits);
        for (let row = 0; row < part.rows; row++) {
          want[storedRow(part, row)] = Array.from({ length: matrix.cols }, (_, column) => weight(row, column));
        }
      }
      const wrong = got.findIndex((row, r) => row.some((value, c) => value !== want[r]?.[c]));
      expect({ matrix: matrix.name, wrong }).toEqual({ matrix: matrix.name, wrong: -1 });
    }
    const values = new Float32Array((await readBuffer(on, aux)).buffer);
    for (const { tensor, at } of plan.vectors) {
      const stored = model.tensors.get(tensor.name);
      if (stored === undefined) throw new RangeError(tensor.name);
      for (let i = 0; i < (tensor.shape[0] ?? 0); i++) expect(values[at(i)]).toBe(read(stored, i));
    }
    return Math.max(...plan.matrices.map(({ shards }) => shards.length));
  } finally {
    freeWeights(on, plan, aux);
    expect(on.memory.buffers).toBe(0);
  }
}

describe("loadWeights", () => {
  const ragged: TinyShape = { hidden: 60, heads: 3, kvHeads: 1, headDim: 20, intermediate: 76, vocab: 101, bias: true };
  const affine: TinyShape = { hidden: 96, heads: 3, kvHeads: 1, headDim: 32, intermediate: 160, vocab: 101 };
  const shapes: TinyShape[] = [
    { ...ragged, layout: "f32" },
    { ...ragged, layout: "f16", hidden: 62, intermediate: 77 }, // rows of an odd number of halves
    { ...ragged, layout: "bf16" },
    { ...affine, layout: "affine4", scales: "F16" },
    { ...affine, layout: "affine8", scales: "BF16" },
    { ...affine, layout: "affine2", scales: "BF16" },
    { ...affine, layout: "affine3", scales: "F16" },
    { ...affine, layout: "affine5", scales: "F32" },
    { ...affine, layout: "affine6", scales: "F16" },
    { ...affine, layout: "affine4", scales: "F32", hidden: 128, heads: 4, group: 32 },
    { ...affine, layout: "affine8", scales: "F32", hidden: 128, heads: 4, intermediate: 256, group: 64 },
  ];
  test.each(shapes)("%j", async (shape) => {
    expect(await check(shape, gpu)).toBe(1);
  });

  test.each(shapes)("in shards of a few blocks: %j", async (shape) => {
    // Just above two blocks of the widest matrix, and staging that takes a few rows at once.
    const limit = 2 * BLOCK_ROWS * 4 * 264;
    const small = { ...gpu, limits: { ...gpu.limits, maxStorageBufferBindingSize: limit, maxBufferSize: limit } };
    expect(await check({ ...shape, vocab: shape.layout?.startsWith("affine") ? 4001 : 1001 }, small)).toBeGreaterThan(
      1,
    );
  });

  test("a row that fits no binding is refused in numbers", async () => {
    const plan = await planOf(tinyModel({ layers: 1 }));
    const small = { ...gpu, limits: { ...gpu.limits, maxStorageBufferBindingSize: 4096, maxBufferSize: 4096 } };
    const [matrix] = plan.matrices;
    if (matrix === undefined) throw new Error("no matrix");
    expect(() => shardBlocks(small, matrix)).toThrow(
      /model\.embed_tokens: 32 rows take 8192 bytes, expected at most 4096/,
    );
    await expect(allocateWeights(small, plan)).rejects.toThrow("32 rows take 8192 bytes");
    expect(gpu.memory.buffers).toBe(0);
  });

  test("counts the bytes it reads, all of them", async () => {
    const model = tinyModel({ layers: 1 });
    const plan = await planOf(model);
    const loaded: number[] = [];
    const aux = await allocateWeights(gpu, plan);
    await loadWeights(gpu, pipelines, plan, aux, { onBytes: (bytes) => loaded.push(bytes) });
    freeWeights(gpu, plan, aux);
    const all = [...model.tensors.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
    expect(loaded.at(-1)).toBe(all);
    expect(loaded).toEqual(loaded.toSorted((a, b) => a - b));
  });
});
