/** Loading: what is known before the weights, what is compiled meanwhile, and memory that runs out on the way. */
import { describe, expect, test } from "vitest";
import type { Folder } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Engine } from "../engine/engine.ts";
import type { LoadProgress } from "../engine/loadModel.ts";
import { countingDevice } from "./countingDevice.ts";
import { hookedDevice } from "./hookedDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const { gpu, pipelines } = await sharedDevice();
const folder = tinyFolder(tinyModel({ vocab: VOCAB, headDim: 32, heads: 2, kvHeads: 1 }));

/** The folder, whose weights do not come before `until`. */
function slowFolder(until: Promise<unknown>): Folder {
  return {
    ...folder,
    open: async (name) => {
      const source = await folder.open(name);
      if (source === undefined || name !== "model.safetensors") return source;
      const whole = async (begin: number, end: number) => {
        if (begin >= source.size / 2) await until; // behind all headers
        return await source.read(begin, end);
      };
      return { ...source, read: whole };
    },
  };
}

describe("kernels", () => {
  test("are compiled while weights stream, at most 25, and no request needs another", {
    timeout: 120_000,
  }, async () => {
    const counted = countingDevice(gpu);
    const fresh = { gpu: counted.gpu, pipelines: new PipelineCache(counted.gpu) };
    const told: LoadProgress[] = [];
    let allCompiled = () => {};
    const compiled = new Promise<void>((resolve) => {
      allCompiled = resolve;
    });
    const onProgress = (progress: LoadProgress) => {
      told.push(progress);
      if (progress.stage === "kernels" && progress.loaded === progress.total) allCompiled();
    };
    await withEngine(slowFolder(compiled), { device: fresh, onProgress }, async (engine) => {
      const stage = (name: LoadProgress["stage"]) => told.filter((it) => it.stage === name);
      expect(stage("kernels").length).toBeGreaterThan(8);
      expect(stage("kernels").length).toBeLessThanOrEqual(25);
      expect(stage("weights").at(-1)).toMatchObject({ loaded: stage("weights")[0]?.total });
      const total = stage("warm-up")[0]?.total;
      expect(stage("warm-up").at(-1)).toEqual({ stage: "warm-up", loaded: total, total });
      expect(told.at(-1)?.stage).toBe("warm-up");
      counted.counts.reset();
      const tokens = randomTokens(1, 300, VOCAB);
      const greedy = { maxTokens: 3, temperature: 0, ignoreEos: true } as const;
      await Promise.all([answer(engine, { ...greedy, tokens }), answer(engine, { ...greedy, tokens: [1, 2, 3] })]);
      await answer(engine, { tokens: [5], maxTokens: 2, temperature: 1, logprobs: 3, ignoreEos: true });
      await engine.score({ tokens: tokens.slice(0, 70), top: 2 });
      expect(counted.counts.pipelines).toBe(0);
    });
  });

  test("that do not compile end loading before the weights are there", async () => {
    const broken = new PipelineCache(
      hookedDevice(gpu, {
        createComputePipelineAsync: (descriptor) =>
          descriptor.label === "repack"
            ? gpu.device.createComputePipelineAsync(descriptor)
            : Promise.reject(new Error("no such shader")),
      }),
    );
    const read: number[] = [];
    const onProgress = ({ stage, loaded }: LoadProgress) => {
      if (stage === "weights") read.push(loaded);
    };
    const loading = Engine.load(folder, { device: { gpu, pipelines: broken }, onProgress });
    await expect(loading).rejects.toThrow("kernel ");
    expect(read.length).toBeLessThan(5); // of some twenty tensors
    expect(gpu.memory.buffers).toBe(0);
  });
});

class GPUOutOfMemoryError {
  readonly message = "there is none";
}

/** The device, without memory for buffers of a label while `refuses` says so. */
function withoutMemory(refuses: (label: string) => boolean): Gpu {
  let refused = false;
  return hookedDevice(gpu, {
    createBuffer: (descriptor) => {
      refused ||= refuses(descriptor.label ?? "");
      return gpu.device.createBuffer(descriptor);
    },
    popErrorScope: async () => {
      const error = refused ? new GPUOutOfMemoryError() : null;
      refused = false;
      return (await gpu.device.popErrorScope()) ?? error;
    },
  });
}

describe("memory that runs out", () => {
  test.each(["norms and biases", "layers.1 kv", "params", "activations"])(
    "for %s is a typed error, and nothing is left behind",
    async (label) => {
      const device = { gpu: withoutMemory((it) => it === label), pipelines };
      await expect(Engine.load(folder, { device })).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
      expect(gpu.memory.buffers).toBe(0);
    },
  );

  test.each(["params", "activations"])("for %s of a later step ends its requests only", async (label) => {
    let refuses = false;
    const device = { gpu: withoutMemory((it) => refuses && it === label), pipelines };
    await withEngine(folder, { device }, async (engine) => {
      const request = { tokens: randomTokens(1, 40, VOCAB), maxTokens: 2, temperature: 0 } as const;
      const [buffers, arena] = [gpu.memory.buffers, engine.stats().memory.arena];
      refuses = true;
      await expect(answer(engine, request)).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
      expect([gpu.memory.buffers, engine.stats().memory.arena]).toEqual([buffers, arena]);
      refuses = false;
      expect((await answer(engine, request)).tokens).toHaveLength(2);
    });
    expect(gpu.memory.buffers).toBe(0);
  });
});
