/** Small devices: matrices in many shards give the bits of whole ones, and nothing passes a limit. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OutOfMemoryError } from "../device/errors.ts";
import { Engine } from "../engine/engine.ts";
import { countingDevice } from "./countingDevice.ts";
import { logitsOf } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, type TinyShape, tinyFolder, tinyModel } from "./tinyModel.ts";

const MIB = 2 ** 20;
const { gpu, pipelines } = await sharedDevice("default");

/** Every matrix of the first layer, the embedding and the head are above 1 MiB; fused ones break in the middle of a part. */
const LARGE: TinyShape = {
  layers: 1,
  hidden: 384,
  heads: 12,
  kvHeads: 6,
  headDim: 64,
  intermediate: 1100,
  vocab: 1701,
};
const shapes: [name: string, shape: TinyShape][] = [
  ["f32, untied", LARGE],
  [
    "affine4 with f32 scales, tied",
    { ...LARGE, layout: "affine4", vocab: 12_009, intermediate: 1024, scales: "F32", tied: true },
  ],
];

test("the device has WebGPU's default limits", () => {
  expect(gpu.limits.maxStorageBufferBindingSize).toBe(128 * MIB);
  expect(gpu.limits.maxStorageBuffersPerShaderStage).toBe(8);
});

describe.each(shapes)("1 MiB a binding: %s", (_, shape) => {
  const folder = tinyFolder(tinyModel({ ...shape, context: 64 }));
  const small = countingDevice(gpu, { maxStorageBufferBindingSize: MIB, maxBufferSize: MIB });
  const tokens = randomTokens(1, 40, shape.vocab ?? 0);
  const request = { tokens: tokens.slice(0, 9), maxTokens: 6, temperature: 0, ignoreEos: true };
  let whole: { logits: Float32Array[]; said: number[]; logprobs: number[] };
  beforeAll(async () => {
    whole = await withEngine(folder, { device: { gpu, pipelines } }, async (engine) => {
      const logits = await logitsOf(engine, tokens);
      const { tokens: said, logprobs } = await answer(engine, request);
      return { logits, said, logprobs };
    });
  });

  test("gives the same bits", async () => {
    await withEngine(folder, { device: { gpu: small.gpu, pipelines } }, async (engine) => {
      const shards = engine.model.weights.matrices.map((matrix) => matrix.shards.length);
      expect(Math.max(...shards)).toBeGreaterThan(2);
      expect(small.counts.largestBuffer).toBeLessThanOrEqual(MIB);
      const logits = await logitsOf(engine, tokens);
      expect(logits.map((row) => row.every(Number.isFinite))).not.toContain(false);
      expect(logits).toEqual(whole.logits);
      const { tokens: said, logprobs } = await answer(engine, request);
      expect([said, logprobs]).toEqual([whole.said, whole.logprobs]);
    });
    expect(small.counts.largestBuffer).toBeLessThanOrEqual(MIB);
    expect(small.counts.largestBinding).toBeLessThanOrEqual(MIB);
    expect(gpu.uncaptured).toEqual([]);
  });
});

test("a context whose pages or rope table cannot be bound is cut or refused in numbers", async () => {
  const folder = tinyFolder(tinyModel({ context: 16384 }));
  const small = countingDevice(gpu, { maxStorageBufferBindingSize: MIB, maxBufferSize: MIB });
  const device = { gpu: small.gpu, pipelines };
  await withEngine(folder, { device }, async (engine) => {
    expect(engine.plan.context).toBeLessThan(16384);
    expect(engine.plan.context).toBeGreaterThan(1024);
    expect(small.counts.largestBuffer).toBeLessThanOrEqual(MIB);
    const { tokens } = await answer(engine, { tokens: [1, 2, 3], maxTokens: 3, temperature: 0 });
    expect(tokens).toHaveLength(3);
  });
  const refused = Engine.load(folder, { device, context: 16384 });
  await expect(refused).rejects.toThrow(OutOfMemoryError);
  await expect(refused).rejects.toThrow(/16384 tokens.*try --context \d+/);
  expect(small.counts.live.size).toBe(0);
});

test("more vocabulary than one dispatch has workgroups an axis", async () => {
  // 70,001 rows in 2,188 blocks, and ids near the end are found.
  const shape: TinyShape = {
    layers: 1,
    hidden: 32,
    heads: 1,
    kvHeads: 1,
    headDim: 32,
    intermediate: 32,
    vocab: 70_001,
    layout: "f16",
  };
  await withEngine(tinyFolder(tinyModel({ ...shape, context: 32 })), { device: { gpu, pipelines } }, async (engine) => {
    const tokens = [70_000, 5, 69_999, 70_000];
    const [first] = await logitsOf(engine, [70_000]);
    const { logprobs, top } = await engine.score({ tokens, top: 64 });
    expect(logprobs.slice(1).every((value) => value !== null && Number.isFinite(value) && value < 0)).toBe(true);
    const best = top[1]?.[0];
    expect(first?.[best?.token ?? -1]).toBe(first?.reduce((a, b) => Math.max(a, b)));
  });
});

afterAll(() => expect(gpu.memory.buffers).toBe(0));
