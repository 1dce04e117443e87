/** The rows whose logits are wanted. */
import { pickRows } from "../../kernels/pick_rows.ts";
import { type Normed, newActivation, type Step } from "../step.ts";

/** The rows whose logits are wanted, as an activation of their own; all of them in order need no copy. */
export function pick(step: Step, { z: x, eps }: Normed): Normed {
  if (step.everyRow) return { z: x, eps };
  const out = newActivation(step, step.samples, x.shape.cols, "picked");
  const params = {
    samples: step.samplesAt,
    stride: x.shape.stride,
    runs: x.shape.runs,
    x_sums: x.shape.sums,
    x_squares: x.shape.squares,
    out_sums: out.shape.sums,
    out_squares: out.shape.squares,
  };
  const buffers = { x: x.slot, batch: step.batch, out: out.slot };
  pickRows.launch(step.recorder, { buffers, params, grid: [step.samples, 1, 1] }, "pick rows");
  return { z: out, eps };
}
