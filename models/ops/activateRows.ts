/** The activation of an MLP without a gate. */
import type { Slot } from "../../device/arena.ts";
import { ACTIVATE_RUNS, activateRows as activateKernel } from "../../kernels/activate.ts";
import { type Activation as ActivationName, activationCode } from "../../kernels/fragments/act.ts";
import { type Activation, newActivation, type Step } from "../step.ts";

/** act(x) for x (rows, stride): (rows, cols). */
export function activateRows(
  step: Step,
  x: { readonly slot: Slot; readonly stride: number },
  cols: number,
  activation: ActivationName,
): Activation {
  const out = newActivation(step, step.rows, cols, "mlp");
  const { stride, runs, sums } = out.shape;
  const params = { activation: activationCode(activation), x_stride: x.stride / 4, stride, runs, sums };
  const grid = [Math.ceil(runs / ACTIVATE_RUNS), step.rows, 1] as const;
  activateKernel.launch(step.recorder, { buffers: { x: x.slot, out: out.slot }, params, grid }, "activation");
  return out;
}
