/** Sums of an activation whose producer could not leave them. */
import { layouts } from "../../kernels/formats/layouts.ts";
import type { Matrix } from "../matrix.ts";
import type { Activation, Step } from "../step.ts";
import { activateRows } from "./activateRows.ts";

/** x with its sums, which affine weights need: a dispatch more where its producer could not leave them. */
export function summed(step: Step, { layout }: Matrix, x: Activation): Activation {
  if (x.sums || layouts[layout].scaling !== "affine") return x;
  return activateRows(step, { slot: x.slot, stride: x.shape.stride }, x.shape.cols, "linear");
}
