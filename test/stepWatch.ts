/** A device that tells of each step as it is submitted: the GPU has its work, and nobody its results. */
import type { Gpu } from "../device/gpu.ts";
import { hookedDevice, replaced } from "./hookedDevice.ts";

/** Whoever watches sets `onStep`. */
export interface StepWatch {
  readonly gpu: Gpu;
  onStep: () => void;
}

/** The same device, watched. */
export function watched(gpu: Gpu): StepWatch {
  const { queue } = gpu.device;
  const submit: GPUQueue["submit"] = (commands) => {
    queue.submit(commands);
    watch.onStep();
  };
  const watch: StepWatch = { gpu: hookedDevice(gpu, { queue: replaced(queue, { submit }) }), onStep: () => {} };
  return watch;
}
