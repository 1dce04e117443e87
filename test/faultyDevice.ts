/** A device of which one call fails, as drivers fail: out of memory in an error scope, a mapping refused, a kernel not compiled. */
import { OutOfMemoryError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { type Hooks, hookedDevice } from "./hookedDevice.ts";

/** Calls that can fail. */
export type FaultKind = "createBuffer" | "mapAsync" | "createComputePipelineAsync" | "popErrorScope";

/** Which call fails: the `nth` of its kind, counted from 1. */
export interface Fault {
  readonly kind: FaultKind | undefined;
  readonly nth: number;
}

/** Counts calls by kind, and says which is to fail. */
export class Faults {
  readonly calls = { createBuffer: 0, mapAsync: 0, createComputePipelineAsync: 0, popErrorScope: 0 };
  readonly #fault: Fault;

  constructor(fault: Fault) {
    this.#fault = fault;
  }

  /** Whether the call came that was to fail. */
  struck = false;
  #over = false;

  /** From here on nothing fails. */
  end(): void {
    this.#over = true;
  }

  /** Counts a call; true for the one that fails. */
  next(kind: FaultKind): boolean {
    const fails = ++this.calls[kind] === this.#fault.nth && kind === this.#fault.kind && !this.#over;
    this.struck ||= fails;
    return fails;
  }
}

class GPUOutOfMemoryError {
  readonly message = "there is none";
}

interface Scope {
  readonly filter: GPUErrorFilter;
  error: GPUOutOfMemoryError | undefined;
}

/** What was compiled already, by label: to compile it again for every fault would take minutes. */
export type KeptPipelines = Map<string, GPUComputePipeline>;

/** The device with its faults. */
export function faultyDevice(gpu: Gpu, faults: Faults, kept: KeptPipelines): Gpu {
  const { device } = gpu;
  const uncaptured: OutOfMemoryError[] = [];
  const scopes: Scope[] = [];
  const hooks: Hooks<GPUDevice> = {
    pushErrorScope: (filter) => {
      scopes.push({ filter, error: undefined });
      device.pushErrorScope(filter);
    },
    popErrorScope: async () => {
      const [scope, popped, fails] = [scopes.pop(), device.popErrorScope(), faults.next("popErrorScope")];
      const real = await popped;
      if (fails) throw new Error("the scope is gone");
      return scope?.error ?? real;
    },
    createBuffer: (descriptor) => {
      if (!faults.next("createBuffer")) return failingMaps(device.createBuffer(descriptor), faults);
      const scope = scopes.findLast(({ filter }) => filter === "out-of-memory");
      if (scope === undefined) uncaptured.push(new OutOfMemoryError(`${descriptor.label}: there is none`));
      else scope.error ??= new GPUOutOfMemoryError();
      return invalidBuffer(device, descriptor);
    },
    createComputePipelineAsync: async (descriptor) => {
      if (faults.next("createComputePipelineAsync")) throw new Error("the compiler gave up");
      const known = kept.get(descriptor.label ?? "");
      if (known !== undefined) return known;
      const pipeline = await device.createComputePipelineAsync(descriptor);
      kept.set(descriptor.label ?? "", pipeline);
      return pipeline;
    },
  };
  return { ...hookedDevice(gpu, hooks), uncaptured };
}

/** What WebGPU hands out where there was no memory: every use of it is an error. */
function invalidBuffer(device: GPUDevice, descriptor: GPUBufferDescriptor): GPUBuffer {
  device.pushErrorScope("validation");
  const buffer = device.createBuffer({ ...descriptor, usage: 0 });
  device.popErrorScope().catch(() => undefined);
  return buffer;
}

function failingMaps(buffer: GPUBuffer, faults: Faults): GPUBuffer {
  if ((buffer.usage & GPUBufferUsage.MAP_READ) === 0) return buffer;
  const { mapAsync } = buffer;
  const hook: GPUBuffer["mapAsync"] = async (...args) => {
    if (faults.next("mapAsync")) throw new Error("the mapping was refused");
    return await mapAsync.apply(buffer, args);
  };
  return Object.assign(buffer, { mapAsync: hook });
}
