/** ONNX Runtime as one of the engines: its WebGPU provider or its CPU provider, by npm's onnxruntime-node. */

import { requireInstalled } from "./installed.ts";
import { type AccuracyLevel, llamaOnnx } from "./llamaOnnx.ts";
import type { Peer } from "./peer.ts";
import type { RandomLlama } from "./randomLlama.ts";

/** What is used of onnxruntime-node. */
interface OnnxRuntime {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OnnxSession>;
  };
  readonly Tensor: new (type: string, data: unknown, dims: readonly number[]) => OnnxTensor;
  readonly env: { readonly versions: Readonly<Record<string, string | undefined>> };
}
interface OnnxTensor {
  readonly data: ArrayLike<unknown>;
  dispose(): void;
}
interface OnnxSession {
  run(feeds: Readonly<Record<string, OnnxTensor>>): Promise<Record<string, OnnxTensor>>;
  release(): Promise<void>;
}

/** Which of its providers, and how exact its products are. */
export interface OnnxOptions {
  readonly provider: "webgpu" | "cpu";
  readonly accuracy: AccuracyLevel;
}

/** The module's own version. Throws BenchError where it is not installed. */
export function onnxVersion(): string {
  return runtime().env.versions.node ?? "unknown";
}

/**
 * Loads the model into a session whose keys and values stay where they are computed: present ones of a step are past ones of the
 * next. The binding cannot write them into the buffers that they came from: it ignores outputs that are given to a session which
 * prefers a place for them (onnxruntime-node 1.30.0), and without that they would go through the CPU.
 */
export async function onnxPeer(model: RandomLlama, { provider, accuracy }: OnnxOptions): Promise<Peer> {
  const { InferenceSession, Tensor } = runtime();
  const { layers, kvHeads, headDim } = model.shape;
  const names = Array.from({ length: layers }, (_, i) => [`${i}.k`, `${i}.v`]).flat();
  const where = provider === "webgpu" ? "gpu-buffer" : "cpu";
  const session = await InferenceSession.create(llamaOnnx(model, accuracy), {
    executionProviders: [provider],
    graphOptimizationLevel: "all",
    preferredOutputLocation: Object.fromEntries(names.map((name) => [`present.${name}`, where])),
    logSeverityLevel: 3, // errors: some operators of shapes stay on the CPU, which it warns of
  });
  const nothing = () => new Tensor("float32", new Float32Array(0), [1, kvHeads, 0, headDim]);
  let cache: Record<string, OnnxTensor> = {};

  /** Computes `ids` behind `past` tokens; the best next token. */
  const step = async (ids: readonly number[], past: number): Promise<number> => {
    const total = past + ids.length;
    const before = past === 0 ? Object.fromEntries(names.map((name) => [`present.${name}`, nothing()])) : cache;
    const out = await session.run({
      ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      seqlens_k: new Tensor("int32", Int32Array.of(total - 1), [1]),
      total: new Tensor("int32", Int32Array.of(total), []),
      ...Object.fromEntries(names.map((name) => [`past.${name}`, found(before, `present.${name}`)])),
    });
    for (const name of Object.keys(cache)) if (name.startsWith("present.")) cache[name]?.dispose();
    cache = out;
    return Number(found(out, "token").data[0]);
  };

  return {
    name: `ONNX Runtime · ${provider === "webgpu" ? "WebGPU" : "CPU"}, ${accuracy === 0 ? "f32" : "accuracy level 4"}`,
    async answer(prompt, count) {
      const start = performance.now();
      const tokens = [await step(prompt, 0)];
      const first = performance.now();
      while (tokens.length < count) tokens.push(await step(tokens.slice(-1), prompt.length + tokens.length - 1));
      return { promptMs: first - start, decodeMs: performance.now() - first, tokens };
    },
    close: () => session.release(),
  };
}

function found(record: Readonly<Record<string, OnnxTensor>>, name: string): OnnxTensor {
  const value = record[name];
  if (value === undefined) throw new RangeError(`onnxruntime: gave no ${name}`);
  return value;
}

/** Held to the interface above by use: it has no types here, since it is not installed with ingle. */
function runtime(): OnnxRuntime {
  return requireInstalled("onnxruntime-node") as OnnxRuntime;
}
