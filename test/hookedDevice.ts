/** A device with some of its calls replaced: what a driver might do, done on purpose. */
import type { Gpu } from "../device/gpu.ts";

/** The same device but for `hooks`; nothing is switched off on it. */
export function hookedDevice(gpu: Gpu, hooks: Partial<GPUDevice>): Gpu {
  const { device } = gpu;
  const proxy = new Proxy(device, {
    get(_, key) {
      const value: unknown = Reflect.get(hooks, key) ?? Reflect.get(device, key, device);
      return typeof value === "function" ? value.bind(device) : value;
    },
    set: (_, key, value) => Reflect.set(device, key, value, device),
  });
  return { ...gpu, device: proxy, off: new Set() };
}
