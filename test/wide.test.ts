/** Wide matmuls, which GPUs get, through an engine on whatever adapter there is: as the reference says, and the same bits in any company. */
import { describe, expect, test } from "vitest";
import type { Gpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { partsOf } from "../kernels/fragments/wide.ts";
import { xFrom } from "../kernels/xFrom.ts";
import { distance, logitsOf, readExpected } from "./expected.ts";
import { hookedDevice } from "./hookedDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const { gpu, pipelines } = await sharedDevice();
const kept = { read: async () => undefined, write: async () => {} };

/** The device as if it were a GPU. */
const asHardware = (of: Gpu): Gpu => ({ ...of, off: new Set(), adapter: { ...of.adapter, kind: "hardware" } });
const hardware = asHardware(gpu);
const wide = { device: { gpu: hardware, pipelines }, kept, context: 96 } as const;

/** Kernels that an engine launched. */
const matmuls = (names: Iterable<string>) => [...names].filter((name) => / M=/.test(name));

test("a hardware adapter gets wide matmuls, and those of 8 lanes where they are off", () => {
  expect(xFrom(hardware)).toBe("wide");
  expect(xFrom({ ...hardware, off: new Set(["wide"]) })).toBe("storage");
});

test("a family's logits and greedy tokens are those of its reference", { timeout: 240_000 }, async () => {
  const path = new URL("./fixtures/families/llama-bias/", import.meta.url);
  const expected = await readExpected(path);
  const [inputs, logits, greedy] = ["input_ids", "logits", "greedy"].map((key) => expected.get(key));
  if (inputs === undefined || logits === undefined || greedy === undefined) throw new RangeError("no reference");
  const options = { ...wide, kvType: "f32" } as const;
  await withEngine(path.pathname, options, async (engine) => {
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
  const request = { tokens: tokens.slice(0, 11), maxTokens: 14, temperature: 0, ignoreEos: true };

  test("are what the model has", () => {
    const parts = (blocks: number, cols: number) => partsOf({ blocks, cols }, "block");
    expect([parts(12, 512), parts(16, 256), parts(16, 640)]).toEqual([4, 2, 4]);
    expect(partsOf({ blocks: 40, cols: 512 }, "pair")).toBe(4);
    expect([parts(128, 4096), parts(1536, 576), parts(4096, 4096)]).toEqual([8, 4, 1]);
    expect(partsOf({ blocks: 688, cols: 4096 }, "pair")).toBe(4);
  });

  test("say what rows that are whole say, and other bits", { timeout: 240_000 }, async () => {
    const run = async (device: { readonly gpu: Gpu; readonly pipelines: PipelineCache }) =>
      withEngine(folder, { device, kept }, async (engine) => ({
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

  test("give the same bits alone, beside others, in chunks, token by token and in row shards", {
    timeout: 240_000,
  }, async () => {
    await withEngine(folder, wide, async (engine) => {
      const alone = await logitsOf(engine, tokens);
      const others = [3, 17, 9].map((length, i) => engine.score({ tokens: randomTokens(i, length, VOCAB) }));
      const [beside, said] = await Promise.all([logitsOf(engine, tokens), answer(engine, request), ...others]);
      expect(beside).toEqual(alone);
      const scored = await engine.score({ tokens: [...request.tokens, ...said.tokens] });
      expect(said.logprobs).toEqual(scored.logprobs.slice(request.tokens.length));
      await withEngine(folder, { ...wide, rowsPerStep: 3 }, async (chunked) => {
        expect(await logitsOf(chunked, tokens)).toEqual(alone);
      });
      const limits = { ...gpu.limits, maxStorageBufferBindingSize: 2 ** 19, maxBufferSize: 2 ** 19 };
      await withEngine(folder, { ...wide, device: { gpu: { ...hardware, limits }, pipelines } }, async (sharded) => {
        expect(Math.max(...sharded.model.weights.matrices.map(({ shards }) => shards.length))).toBeGreaterThan(1);
        expect(await logitsOf(sharded, tokens)).toEqual(alone);
      });
    });
  });
});

test("a driver that gets them wrong is given those of 8 lanes", { timeout: 240_000 }, async () => {
  const folder = tinyFolder(tinyModel({ headDim: 32, heads: 2, kvHeads: 1 }));
  const broken = asHardware(
    hookedDevice(gpu, {
      createShaderModule: (descriptor) => {
        const wrong = / wide$/.test(descriptor.label ?? "");
        const code = wrong ? descriptor.code.replace("sum += dots[m", "sum -= dots[m") : descriptor.code;
        return gpu.device.createShaderModule({ ...descriptor, code });
      },
    }),
  );
  const request = { tokens: randomTokens(1, 20, 97), maxTokens: 6, temperature: 0, ignoreEos: true };
  const launched = new Set<string>();
  const profiler = {
    attach: () => {},
    encode: (_: GPUCommandEncoder, { dispatches }: { readonly dispatches: readonly { readonly kernel: string }[] }) => {
      for (const { kernel } of dispatches) launched.add(kernel);
      return undefined;
    },
  };
  const device = { gpu: broken, pipelines: new PipelineCache(broken) };
  const said = await withEngine(folder, { device, kept, profiler, rowsPerStep: 1 }, async (engine) => {
    expect([...engine.gpu.off]).toEqual(["wide"]);
    return answer(engine, request);
  });
  expect(matmuls(launched)).not.toEqual([]);
  expect(matmuls(launched).filter((name) => name.endsWith(" wide"))).toEqual([]);
  const right = await withEngine(folder, { device: { gpu, pipelines }, kept, rowsPerStep: 1 }, (engine) =>
    answer(engine, request),
  );
  expect(said.logprobs).toEqual(right.logprobs);
});
