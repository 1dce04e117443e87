/** What a page and its worker tell each other: plain data, since it is cloned on the way. */
import type { LoadProgress } from "../engine/loadModel.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import type { ConformanceOptions, ConformanceReport } from "../kernels/conformance.ts";
import type { Verdict } from "../kernels/testbed.ts";

/** To the engine's worker. `id` tells one generate from another. */
export type EngineOrder =
  | { readonly type: "load"; readonly model: string }
  | { readonly type: "generate"; readonly id: number; readonly request: Omit<GenerateRequest, "signal"> }
  | { readonly type: "stop"; readonly id: number };

/** From it. `failed` without an id is of loading. */
export type EngineNews =
  | { readonly type: "progress"; readonly progress: LoadProgress }
  | { readonly type: "loaded"; readonly about: AboutModel }
  | { readonly type: "part"; readonly id: number; readonly part: Part }
  | { readonly type: "ended"; readonly id: number; readonly aborted: boolean }
  | { readonly type: "failed"; readonly id?: number; readonly failure: Failure };

/** What a page says of a loaded model. */
export interface AboutModel {
  readonly adapter: string;
  readonly software: boolean;
  /** Whether it has a chat template. */
  readonly templated: boolean;
  /** Tokens a sequence. */
  readonly context: number;
}

/** To the kernels' worker, once. */
export type KernelsOrder = Pick<ConformanceOptions, "suite" | "filter" | "features"> & {
  readonly limits?: "adapter" | "default";
};

/** From it. */
export type KernelsNews =
  | { readonly type: "verdict"; readonly verdict: Verdict; readonly index: number; readonly total: number }
  | { readonly type: "report"; readonly report: ConformanceReport }
  | { readonly type: "failed"; readonly failure: Failure };

/** An error on its way: a class does not survive cloning. `code` is "" where it has none. */
export interface Failure {
  readonly code: string;
  readonly message: string;
}

/** The error as it travels. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { code: "", message: String(error) };
  return { code: "code" in error && typeof error.code === "string" ? error.code : "", message: error.message };
}
