/** One device for all engines of a test file: what SwiftShader compiled for one is there for the next. */
import { afterAll } from "vitest";
import type { Folder } from "../device/files.ts";
import { openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineOptions, SharedDevice } from "../engine/options.ts";
import { expectSums } from "./sums.ts";

/** Opens the chosen adapter and closes it after the file's last test. */
export async function sharedDevice(limits: EngineOptions["limits"] = "adapter"): Promise<SharedDevice> {
  const gpu = await openGpu({ limits });
  afterAll(() => gpu.close());
  return { gpu, pipelines: new PipelineCache(gpu) };
}

/** Loads, works and closes, whatever happens. Where nothing did, the engine's sums must agree. */
export async function withEngine<T>(
  model: string | Folder,
  options: EngineOptions,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  const engine = await Engine.load(model, options);
  try {
    const result = await work(engine);
    expectSums(engine);
    return result;
  } finally {
    await engine.close();
  }
}

/** What a request answers, in one piece. */
export async function answer(engine: Engine, request: Parameters<Engine["generate"]>[0]) {
  const tokens: number[] = [];
  const logprobs: number[] = [];
  let text = "";
  for await (const part of engine.generate(request)) {
    tokens.push(part.token);
    logprobs.push(part.logprob);
    text += part.text;
    if (part.finishReason !== null) return { tokens, logprobs, text, last: part };
  }
  throw new RangeError("generate: ended without a last part");
}
