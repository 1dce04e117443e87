/** Wide matmuls, which GPUs get, through an engine on whatever adapter there is: as the reference says, and the same bits in any company. */
import { describe, expect, test } from "vitest";
import type { KeptTexts } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { selfTest, testsFor } from "../engine/selfTest.ts";
import { partsOf } from "../kernels/fragments/wide.ts";
import { xFrom } from "../kernels/xFrom.ts";
import { distance, logitsOf, readExpected } from "./expected.ts";
import { hookedDevice } from "./hookedDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const { gpu, pipelines } = await sharedDevice();
/** Texts in memory: what an engine tried, the next one need not. */
function memory(): KeptTexts {
  const texts = new Map<string, string>();
  return { read: async (name) => texts.get(name), write: async (name, text) => void texts.set(name, text) };
}
const kept = memory();

/** The device as if it were a GPU. */
const asHardware = (of: Gpu): Gpu => ({ ...of, off: new Set(), adapter: { ...of.adapter, kind: "hardware" } });
const hardware = asHardware(gpu);
const wide = { device: { gpu: hardware, pipelines }, kept, kvType: "f32", context: 96 } as const;

test("a hardware adapter gets wide matmuls, and those of 8 lanes where they are off", () => {
  expect(xFrom(hardware)).toBe("wide");
  expect(xFrom({ ...hardware, off: new Set(["wide"]) })).toBe("storage");
});

test("a family's logits and greedy tokens are those of its reference", { timeout: 480_000 }, async () => {
  const path = new URL("./fixtures/families/llama-bias/", import.meta.url);
  const expected = await readExpected(path);
  const [inputs, logits, greedy] = ["input_ids", "logits", "greedy"].map((key) => expected.get(key));
  if (inputs === undefined || logits === undefined || greedy === undefined) throw new RangeError("no reference");
  await withEngine(path.pathname, wide, async (engine) => {
    const tokens = inputs.row(0);
    const rows = Array.from({ length: logits.shape[1] ?? 0 }, (_, t) => logits.row(0, t));
    expect(distance(await logitsOf(engine, tokens), rows).max).toBeLessThanOrEqual(1e-3);
    const want = greedy.row(0).slice(0, 96 - tokens.length);
    const { tokens: said } = await answer(engine, { tokens, maxTokens: want.length, temperature: 0, ignoreEos: true });
    expect(said).toEqual(want);
  });
});

describe("columns in parts", () => {
  const VOCAB = 97;
  const shape = { hidden: 512, heads: 8, kvHeads: 2, headDim: 32, intermediate: 640, vocab: VOCAB, layers: 1 } as const;
  const folder = tinyFolder(tinyModel(shape));
  const tokens = randomTokens(5, 29, VOCAB);
  const request = { tokens: tokens.slice(0, 11), maxTokens: 8, temperature: 0, ignoreEos: true };

  test("are what the model has", () => {
    const parts = (blocks: number, cols: number) => partsOf({ blocks, cols }, "block");
    expect([parts(12, 512), parts(16, 256), parts(16, 640)]).toEqual([4, 2, 4]);
    expect(partsOf({ blocks: 40, cols: 512 }, "pair")).toBe(4);
  });

  test("say what rows that are whole say, and other bits", { timeout: 480_000 }, async () => {
    const run = async (device: { readonly gpu: Gpu; readonly pipelines: PipelineCache }) =>
      withEngine(folder, { ...wide, device }, async (engine) => ({
        logits: await logitsOf(engine, tokens),
        said: (await answer(engine, request)).tokens,
      }));
    const [parts, whole] = [await run(wide.device), await run({ gpu, pipelines })];
    expect(parts.said).toEqual(whole.said);
    const { max } = distance(
      parts.logits,
      whole.logits.map((row) => [...row]),
    );
    expect(max).toBeLessThanOrEqual(1e-3);
    expect(max).toBeGreaterThan(0); // or they were not in parts
  });

  test("give the same bits alone, beside others, token by token and in row shards", {
    timeout: 480_000,
  }, async () => {
    await withEngine(folder, wide, async (engine) => {
      const alone = await logitsOf(engine, tokens);
      const others = [3, 7].map((length, i) => engine.score({ tokens: randomTokens(i, length, VOCAB) }));
      const [beside, said] = await Promise.all([logitsOf(engine, tokens), answer(engine, request), ...others]);
      expect(beside).toEqual(alone);
      const scored = await engine.score({ tokens: [...request.tokens, ...said.tokens] });
      expect(said.logprobs).toEqual(scored.logprobs.slice(request.tokens.length));
      const limits = { ...gpu.limits, maxStorageBufferBindingSize: 2 ** 19, maxBufferSize: 2 ** 19 };
      await withEngine(folder, { ...wide, device: { gpu: { ...hardware, limits }, pipelines } }, async (sharded) => {
        expect(Math.max(...sharded.model.weights.matrices.map(({ shards }) => shards.length))).toBeGreaterThan(1);
        expect(await logitsOf(sharded, tokens)).toEqual(alone);
      });
    });
  });
});

test("a driver that gets them wrong is given those of 8 lanes", { timeout: 120_000 }, async () => {
  const broken = asHardware(
    hookedDevice(gpu, {
      createShaderModule: (descriptor) => {
        const code = descriptor.code.replace("sum += dots[m", "sum -= dots[m");
        return gpu.device.createShaderModule({ ...descriptor, code });
      },
    }),
  );
  const tests = testsFor(broken.adapter).filter(({ kernels }) => kernels[0]?.name === "norm_matmul f32 M=1 wide");
  expect(tests).toHaveLength(1);
  const outcomes = await selfTest(broken, new PipelineCache(broken), tests, { kept: memory() });
  expect(Object.values(outcomes).map(({ why }) => why)).toEqual([expect.stringContaining("NMSE")]);
  expect([...broken.off]).toEqual(["wide"]);
  expect(xFrom(broken)).toBe("storage");
});
