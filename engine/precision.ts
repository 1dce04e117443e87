/** The precision of a model's matmuls: whether the adapter can, and which matrices it is for. */
import { AdapterUnavailableError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { missingFor, narrowOf, type Precision } from "../kernels/xFrom.ts";
import type { Matrix } from "../models/matrix.ts";

/** What was asked for, and what of the model it reaches. */
export interface PrecisionPlan {
  readonly mode: Precision;
  /** Layouts of the matrices that are multiplied so. */
  readonly layouts: readonly string[];
  /** What stays in f32: layouts that are none of integer codes, and experts. */
  readonly others: readonly string[];
}

/** Throws AdapterUnavailableError where the adapter lacks what the precision needs: another is never taken silently. */
export function planPrecision(
  gpu: Pick<Gpu, "adapter" | "features">,
  wanted: "auto" | Precision | undefined,
  matrices: readonly Pick<Matrix, "layout" | "unit">[],
): PrecisionPlan {
  const mode = wanted === undefined || wanted === "auto" ? "f32" : wanted;
  const missing = missingFor(gpu, mode);
  if (missing !== null) {
    throw new AdapterUnavailableError(
      `precision ${mode}: adapter "${gpu.adapter.name}" has no ${missing}, expected one that has; choose --precision f32 or another --adapter`,
    );
  }
  return { mode, ...reach(mode, matrices) };
}

/** Blocks of one shard beyond which a matrix is a stack of experts: gate and up alternate by two. */
const PAIR = 2;

function reach(mode: Precision, matrices: readonly Pick<Matrix, "layout" | "unit">[]) {
  const stays = ({ layout, unit }: Pick<Matrix, "layout" | "unit">) =>
    mode !== "f32" && (unit > PAIR || narrowOf(mode, layout) === null);
  const named = ({ layout, unit }: Pick<Matrix, "layout" | "unit">) => (unit > PAIR ? "experts" : layout);
  const layouts = new Set(matrices.filter((it) => !stays(it)).map(({ layout }) => layout));
  const others = new Set(matrices.filter(stays).map(named));
  return { layouts: [...layouts].sort(), others: [...others].sort() };
}

/** The same in a line for people. */
export function precisionLine({ mode, layouts, others }: PrecisionPlan): string {
  const which = layouts.length === 0 ? "no matrix" : `matrices of ${layouts.join(", ")}`;
  return `precision ${mode}: ${which}${others.length === 0 ? "" : `; in f32: ${others.join(", ")}`}`;
}
