/** What a forward pass is recorded against: the bucket it is for, and the buffers that change from step to step. */
import type { Slot } from "../device/arena.ts";
import type { Gpu } from "../device/gpu.ts";
import type { Recorder } from "../device/program.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { type ActivationShape, activationShape } from "../kernels/fragments/activation.ts";
import { MATMUL_ROWS, type MatmulRows, type XFrom } from "../kernels/fragments/matmul.ts";
import { type Rows, windowRows } from "../kernels/fragments/window.ts";
import { rowsVariant } from "../kernels/variantNames.ts";
import { type Precision, xFrom } from "../kernels/xFrom.ts";
import type { Vector } from "./vectors.ts";

/** Buffers that outlive a program. */
export interface StepBuffers {
  /** u32: rows, samples, block tables (kernels/fragments/batch.ts). */
  readonly batch: GPUBuffer;
  /** f32 (rows, rotary_dim) each: cosines, then sines. At least one, which may be unused. */
  readonly ropes: readonly GPUBuffer[];
  /** f32: norms, biases, sinks. */
  readonly aux: GPUBuffer;
  /** Pages of each layer, or states. */
  readonly kv: readonly GPUBuffer[];
  /** Which of a row's block tables each layer goes by. */
  readonly groups: readonly number[];
}

/** One recording: a batch-size bucket and one kind of output. */
export interface Step extends StepBuffers {
  readonly recorder: Recorder;
  readonly kvType: KvType;
  /** Of activations before a matmul, and of its products. */
  readonly precision: Precision;
  /** Rows of the bucket. */
  readonly rows: number;
  /** Whether every sequence has one row, so that attention can rope and store its own key. */
  readonly oneRowEach: boolean;
  /** Splits of the keys: 0 where one workgroup takes all. */
  readonly splits: number;
  /** Rows whose logits are wanted. */
  readonly samples: number;
  /** Whether those are the step's rows in order. */
  readonly everyRow: boolean;
  /** Where the samples' records begin, in words of the batch. */
  readonly samplesAt: number;
  /** Where routes are wanted: one a mixture of experts, in order of depth, added while the step is recorded. */
  readonly routes?: StepRoute[];
}

/** A kept route of every row (kernels/moe/route.ts). */
export interface StepRoute {
  readonly slot: Slot;
  /** Items a row, of which the first `top_k` are the chosen experts. */
  readonly slots: number;
  readonly top_k: number;
}

/** A buffer of values with their sums (kernels/fragments/activation.ts). */
export interface Activation {
  readonly slot: Slot;
  readonly shape: ActivationShape;
  /** Whether sums by runs of 32 are stored with it; else a matmul computes them first. */
  readonly sums: boolean;
}

/** A norm as a family claims it. */
export interface Norm {
  readonly kind: "rms" | "layer";
  readonly weight: Vector;
  readonly bias?: Vector | undefined;
  readonly eps: number;
  /** Multiplies what comes out; of a norm of its own dispatch only. */
  readonly scale?: number;
}

/** What a matmul reads: y through a norm. The factor of an RMS norm is still owed, as `eps` says, and goes behind the matmul's sum. */
export interface Normed {
  readonly z: Activation;
  /** null: nothing is owed. */
  readonly eps: number | null;
}

/** The residual stream y (rows, stride), and what the next matmul reads of it, with the sums that it needs. */
export interface Residual extends Normed {
  readonly y: Slot;
}

/**
 * Rows of x that a launch takes at once, for a number of rows: any choice gives the same bits. A kernel for 2 costs software adapters
 * more to compile than it gains, and so does one for 8 where x comes from storage: 5 to 12 seconds, and no faster a row than one for 4.
 */
export function matmulRows(gpu: Pick<Gpu, "adapter" | "features" | "off">, rows: number): MatmulRows {
  const software = gpu.adapter.kind === "software";
  const choices: readonly MatmulRows[] = !software ? [8, 4, 2] : xFrom(gpu) === "storage" ? [4] : [8, 4];
  return choices.find((m) => rows >= m && !gpu.off.has(rowsVariant(m))) ?? 1;
}

/** How x reaches the lanes of a matmul, and rows at once: as many as a window has room for, where it comes through one. */
export function matmulWay(
  gpu: Pick<Gpu, "adapter" | "features" | "off">,
  shape: Rows,
): { readonly from: XFrom; readonly m: MatmulRows } {
  const from = xFrom(gpu);
  const most = matmulRows(gpu, shape.rows);
  const choices = MATMUL_ROWS.filter((m) => m <= most && !gpu.off.has(rowsVariant(m)));
  if (from !== "broadcast") return { from, m: most };
  const m = choices.findLast((it) => windowRows(shape, it) > 0);
  // Without a window at most four: matmulRows says why.
  return m === undefined ? { from: "storage", m: choices.findLast((it) => it <= 4) ?? 1 } : { from, m };
}

/** A new activation of `rows` rows, padded to what the matmuls take at once. */
export function newActivation(step: Step, rows: number, cols: number, label: string, sums = true): Activation {
  const m = matmulRows(step.recorder.gpu, rows);
  const shape = activationShape(Math.ceil(rows / m) * m, cols);
  return { slot: step.recorder.slot(shape.bytes, label), shape, sums };
}
