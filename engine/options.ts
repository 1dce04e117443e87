/** How a model is loaded: the fields of `Engine.load`, and their checks. */

import type { Folder, KeptTexts } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import type { StepEncoder } from "../device/profiler.ts";
import { KV_TYPES, type KvType } from "../kernels/attention/kv_types.ts";
import { PRECISIONS, type Precision } from "../kernels/xFrom.ts";
import { MAX_ROWS } from "./batch.ts";
import { InvalidRequestError } from "./errors.ts";
import { MOST_STEPS } from "./freeRun.ts";
import type { LoadProgress } from "./loadModel.ts";
import type { MemoryPlan } from "./memoryPlan.ts";

/** How a model is loaded, and where. */
export interface EngineOptions {
  /** Bytes read so far, by stage. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** The memory plan, before anything is allocated. */
  readonly onPlan?: (plan: MemoryPlan, gpu: Gpu["adapter"]) => void;
  /** How keys and values are kept; f16 as unset. "int8", with a scale a head's vector, is about half of f16 and less exact. */
  readonly kvType?: KvType;
  /**
   * Of what matmuls multiply; sums of groups, norms, attention and the residual stream are f32 in all of them. "auto", as unset, is f32.
   * "f16" and "int8" are faster where a GPU has the instructions, less exact, and of matrices of integer codes alone.
   */
  readonly precision?: "auto" | Precision;
  /** Tokens a sequence; unset: the model's own, or what fits. */
  readonly context?: number;
  /** Bytes for keys and values of all sequences, and their states where layers keep some. */
  readonly kvMemory?: number;
  /** Part of an adapter's name, or its index in `ingle doctor`. */
  readonly adapter?: string;
  /** Limits of the device; "default" is WebGPU's minimum. */
  readonly limits?: "adapter" | "default" | Readonly<Record<string, number>>;
  /** Most tokens that a step computes, 1 to 64 as unset. Fewer let other requests in sooner; results are the same bits. */
  readonly rowsPerStep?: number;
  /**
   * Decoding steps that are submitted at once and read back together, 1 to 16; unset: as many as take 30 ms. More pay where a read-back
   * takes long, as in browsers that look for it every 100 ms.
   */
  readonly window?: number;
  /** A device that several engines share, with what was compiled on it. Its owner closes it, after them. Unset: one of its own. */
  readonly device?: SharedDevice;
  /** Sees every step that is submitted, and may time its dispatches one by one. */
  readonly profiler?: StepEncoder;
  /** A smaller model of the same vocabulary that proposes tokens: as `model`. Answers are the same, and may come sooner. */
  readonly draft?: string | Folder;
  /** Where results of the self-test are kept; unset, in the user's cache folder or the site's cache. */
  readonly kept?: KeptTexts;
  readonly signal?: AbortSignal;
}

/** A device with what was compiled on it. */
export interface SharedDevice {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
}

/** Throws InvalidRequestError for a field that is out of range. */
export function checkOptions({ precision, kvType, rowsPerStep, window, context, kvMemory }: EngineOptions): void {
  checkInteger("rowsPerStep", rowsPerStep, 1, MAX_ROWS);
  checkInteger("window", window, 1, MOST_STEPS);
  checkInteger("context", context, 2, 2 ** 31); // a token of the prompt, and one of the answer
  checkInteger("kvMemory", kvMemory, 1, Number.MAX_SAFE_INTEGER);
  if (precision !== undefined && precision !== "auto" && !PRECISIONS.includes(precision)) {
    throw new InvalidRequestError(
      `precision: is ${JSON.stringify(precision)}, expected auto or ${PRECISIONS.join(" or ")}`,
    );
  }
  if (kvType !== undefined && !KV_TYPES.includes(kvType)) {
    throw new InvalidRequestError(`kvType: is ${JSON.stringify(kvType)}, expected ${KV_TYPES.join(" or ")}`);
  }
}

function checkInteger(field: string, value: number | undefined, min: number, max: number): void {
  if (value !== undefined && !(Number.isInteger(value) && value >= min && value <= max))
    throw new InvalidRequestError(`${field}: is ${value}, expected an integer from ${min} to ${max}`);
}
