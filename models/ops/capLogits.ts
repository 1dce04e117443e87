/** The cap on logits. */
import type { Slot } from "../../device/arena.ts";
import { SOFTCAP_SPAN, softcap } from "../../kernels/softcap.ts";
import type { Step } from "../step.ts";

/** cap · tanh(logits / cap), in place; as they are where there is no cap. */
export function capLogits(
  step: Step,
  logits: { readonly slot: Slot; readonly stride: number },
  cap: number | null,
): { readonly slot: Slot; readonly stride: number } {
  if (cap === null) return logits;
  const grid = [Math.ceil(logits.stride / SOFTCAP_SPAN), step.samples, 1] as const;
  const params = { cap, stride: logits.stride / 4 };
  softcap.launch(step.recorder, { buffers: { logits: logits.slot }, params, grid }, "softcap");
  return logits;
}
