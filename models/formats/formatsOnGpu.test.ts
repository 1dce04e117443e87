/** Every checkpoint format on the GPU: repacked there, and decoded by the WGSL that the matmuls use, weight by weight. */
import { describe, expect, test } from "vitest";
import { Arena } from "../../device/arena.ts";
import { createBuffer, destroyBuffer } from "../../device/buffers.ts";
import { encode, Recorder } from "../../device/program.ts";
import { readBuffer } from "../../device/readback.ts";
import { embed } from "../../kernels/embed.ts";
import { scaleTypeCode } from "../../kernels/formats/group_scales.ts";
import { BLOCK_ROWS, groupCount, paramWords, runCount } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { activationShape } from "../../kernels/fragments/activation.ts";
import { ROW, ROW_WORDS } from "../../kernels/fragments/batch.ts";
import { NONE } from "../../kernels/kernel.ts";
import { formatFixtures, planFixture } from "../../test/formatFixtures.ts";
import { planQuantized, quantizedModules } from "../../test/quantizedModules.ts";
import { sharedDevice } from "../../test/sharedDevice.ts";
import { planSliced, slicedPlans } from "../../test/slicedPlans.ts";
import { storedWeights } from "../../test/storedWeights.ts";
import { allocateWeights, freeWeights } from "../allocateWeights.ts";
import { type LoadOptions, loadWeights } from "../loadWeights.ts";
import type { Matrix } from "../matrix.ts";
import type { WeightPlan } from "../weightPlan.ts";

const { gpu, pipelines } = await sharedDevice();

/** Stored rows of a matrix, in f32, as an embedding would give them; columns in the stored order. */
async function decoded(matrix: Matrix, aux: GPUBuffer): Promise<{ values: Float32Array; stride: number }> {
  const rows = matrix.blocks * BLOCK_ROWS;
  const z = activationShape(rows, matrix.cols);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const make = (label: string, size: number) => createBuffer(gpu, { label, size, usage });
  const batch = make("batch", rows * ROW_WORDS * 4);
  const tokens = new Uint32Array(rows * ROW_WORDS);
  for (let row = 0; row < rows; row++) tokens[row * ROW_WORDS + ROW.token] = row;
  gpu.device.queue.writeBuffer(batch, 0, tokens);
  const [y, out] = [make("y", z.sums * 4), make("z", z.bytes)];
  const arena = new Arena(gpu);
  const recorder = new Recorder(gpu, pipelines);
  const layout = layouts[matrix.layout];
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      row_runs: runCount(matrix.cols),
      groups: groupCount(matrix),
      group_cols: matrix.group,
      scale_type: scaleTypeCode(layout, matrix),
      param_words: paramWords(layout, matrix),
      table: matrix.tableAt ?? 0,
      first_row: firstBlock * BLOCK_ROWS,
      end_row: (firstBlock + blocks) * BLOCK_ROWS,
      multiplier: 1,
      id_word: ROW.token,
      add: 0,
      norm_weight: NONE,
      stride: z.stride,
      runs: z.runs,
      z_sums: z.sums,
      z_squares: z.squares,
    };
    const buffers = { words, scales: scales ?? words, aux, batch, y, z: out };
    embed(matrix.layout).launch(recorder, { buffers, params, grid: [rows, 1, 1] });
  }
  const program = await recorder.finish(arena);
  const encoder = gpu.device.createCommandEncoder();
  encode(encoder, program);
  gpu.device.queue.submit([encoder.finish()]);
  const values = new Float32Array((await readBuffer(gpu, y)).buffer);
  program.destroy();
  arena.destroy();
  for (const buffer of [batch, y, out]) destroyBuffer(gpu, buffer);
  return { values, stride: z.stride };
}

/** Loads a plan and compares every weight of its matrices, as bits, with what the CPU reads from the checkpoint. */
async function compare(plan: WeightPlan, options: LoadOptions = {}): Promise<void> {
  const aux = await allocateWeights(gpu, plan);
  try {
    await loadWeights(gpu, pipelines, plan, aux, options);
    for (const matrix of plan.matrices) {
      const { values, stride } = await decoded(matrix, aux);
      const places = matrix.order ?? Uint32Array.from({ length: matrix.cols }, (_, i) => i);
      for (const part of matrix.parts) {
        const want = await storedWeights(matrix, part);
        const got = want.map((_, i) => {
          const row = Math.floor(i / matrix.cols);
          const column = places.indexOf(i % matrix.cols);
          const block = part.firstBlock + Math.floor(row / BLOCK_ROWS) * part.blockStride;
          return values[(block * BLOCK_ROWS + (row % BLOCK_ROWS)) * stride + column] ?? Number.NaN;
        });
        const wrong = got.findIndex((value, i) => value !== want[i]);
        expect({ part: part.module, wrong, got: got[wrong], want: want[wrong] }).toEqual({
          part: part.module,
          wrong: -1,
        });
      }
    }
  } finally {
    freeWeights(gpu, plan, aux);
  }
}

describe("modules of the reference libraries", () => {
  test.each(Object.keys(formatFixtures))("%s", async (name) => {
    const { checkpoint, plan } = await planFixture(name);
    await compare(plan);
    await checkpoint.close();
  });
});

describe("parts of tensors", () => {
  test.each(slicedPlans.map((it) => [it.name, it] as const))("%s", async (_, sliced) => {
    await compare((await planSliced(sliced)).plan);
    await compare((await planSliced(sliced)).plan, { pieceBytes: 1024 });
  });
});

describe("modules of other shapes", () => {
  test.each(quantizedModules.map((it) => [it.name, it] as const))("%s", async (_, module) => {
    await compare((await planQuantized(module)).plan);
  });

  test.each(quantizedModules.map((it) => [it.name, it] as const))(
    "in pieces of a few rows or columns: %s",
    async (_, module) => {
      await compare((await planQuantized(module)).plan, { pieceBytes: 256 });
    },
  );
});
