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
}
interface OnnxSession {
  run(
    feeds: Readonly<Record<string, OnnxTensor>>,
    fetches: Readonly<Record<string, OnnxTensor | null>>,
  ): Promise<Record<string, OnnxTensor>>;
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

/** Loads the model into a session with a static cache: present keys and values are written where the past ones lie. */
export async function onnxPeer(model: RandomLlama, { provider, accuracy }: OnnxOptions): Promise<Peer> {
  const { InferenceSession, Tensor } = runtime();
  const { layers, kvHeads, context, headDim } = model.shape;
  const names = Array.from({ length: layers }, (_, i) => [`${i}.k`, `${i}.v`]).flat();
  const where = provider === "webgpu" ? "gpu-buffer" : "cpu";
  const session = await InferenceSession.create(llamaOnnx(model, accuracy), {
    executionProviders: [provider],
    graphOptimizationLevel: "all",
    preferredOutputLocation: Object.fromEntries(names.map((name) => [`present.${name}`, where])),
    logSeverityLevel: 3, // errors: some operators of shapes stay on the CPU, which it warns of
  });
  const size = kvHeads * context * headDim;
  const empty = () => new Tensor("float32", new Float32Array(size), [1, kvHeads, context, headDim]);
  let cache = Object.fromEntries(names.map((name) => [name, empty()]));
  let shared = provider === "cpu";

  /** Computes `ids` behind `past` tokens; the best next token. */
  const step = async (ids: readonly number[], past: number): Promise<number> => {
    const total = past + ids.length;
    const feeds = {
      ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      seqlens_k: new Tensor("int32", Int32Array.of(total - 1), [1]),
      total: new Tensor("int32", Int32Array.of(total), []),
      ...Object.fromEntries(names.map((name) => [`past.${name}`, found(cache, name)])),
    };
    // The first run makes the buffers on the GPU; from then on each is bound as past and as present.
    const present = names.map((name) => [`present.${name}`, shared ? found(cache, name) : null]);
    const fetches: Record<string, OnnxTensor | null> = { token: null, ...Object.fromEntries(present) };
    const out = await session.run(feeds, fetches);
    if (!shared) cache = Object.fromEntries(names.map((name) => [name, found(out, `present.${name}`)]));
    shared = true;
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
