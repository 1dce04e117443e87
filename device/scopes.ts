/** Error scopes: WebGPU's silent failures, made into exceptions of their own classes. */
import { DeviceLostError, type GpuValidationError, OutOfMemoryError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { typedError } from "./gpuErrors.ts";

const FILTERS = ["validation", "out-of-memory", "internal"] as const satisfies GPUErrorFilter[];

/**
 * Calls `work` and, beside what it returns, gives the first error its GPU calls met. Exact whatever else runs, as long as
 * `work` makes its calls before it returns.
 */
export function insideErrorScopes<T>(
  { device }: Gpu,
  work: () => T,
  where = "webgpu",
): { value: T; error: Promise<OutOfMemoryError | GpuValidationError | undefined> } {
  for (const filter of FILTERS) device.pushErrorScope(filter);
  try {
    const value = work();
    return { value, error: popAll(device, where) };
  } catch (thrown) {
    popAll(device, where).catch(() => undefined); // what was thrown comes first
    throw thrown;
  }
}

async function popAll(device: GPUDevice, where: string): Promise<OutOfMemoryError | GpuValidationError | undefined> {
  const popped = FILTERS.map(() => device.popErrorScope());
  let errors: (GPUError | null)[];
  try {
    errors = await Promise.all(popped);
  } catch (cause) {
    throw new DeviceLostError(`${where}: the device went away before its errors were known`, { cause });
  }
  const typed = errors.flatMap((error) => (error === null ? [] : [typedError(error, where)]));
  return typed.find((error) => error instanceof OutOfMemoryError) ?? typed[0];
}
