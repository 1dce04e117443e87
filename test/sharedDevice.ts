/** One device for the engines of all test files of a process: what SwiftShader compiled for one is there for the next. */
import type { Folder } from "../device/files.ts";
import { chosenAdapters, type Gpu, openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineOptions, SharedDevice } from "../engine/options.ts";
import { expectSums } from "./sums.ts";

/** By adapter and limits. They end with the process. */
const opened = new Map<string, SharedDevice>();

/** A device of an adapter, the chosen one as unset, as if it had just been opened, with what was compiled on it before. */
export async function sharedDevice(
  limits: NonNullable<EngineOptions["limits"]> = "adapter",
  adapter?: string,
): Promise<SharedDevice> {
  const [best] = await chosenAdapters(adapter);
  const key = JSON.stringify([limits, best?.name]);
  let shared = opened.get(key);
  if (shared === undefined || !(await isAsNew(shared.gpu))) {
    shared?.gpu.close();
    const gpu = await openGpu({ limits, ...(best === undefined ? {} : { adapter: best.name }) });
    shared = { gpu, pipelines: new PipelineCache(gpu) };
    opened.set(key, shared);
  }
  const { gpu, pipelines } = shared;
  return { gpu: { ...gpu, off: new Set() }, pipelines };
}

/** Whether nothing is left of a file that failed. */
async function isAsNew({ lost, memory, uncaptured }: Gpu): Promise<boolean> {
  const loss = await Promise.race([lost, Promise.resolve(undefined)]);
  return loss === undefined && memory.buffers === 0 && uncaptured.length === 0;
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
