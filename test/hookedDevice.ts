/** A device with some of its calls replaced: what a driver might do, done on purpose. */
import type { Gpu } from "../device/gpu.ts";

/** Members to put in place of an object's own. */
export type Hooks<T> = Partial<{ [K in keyof T]: T[K] }>;

/** `target` with some members replaced; its own methods keep their `this`, which native objects insist on. */
export function replaced<T extends object>(target: T, hooks: Hooks<T>): T {
  return new Proxy(target, {
    get(_, key) {
      const hook: unknown = Reflect.get(hooks, key);
      if (hook !== undefined) return hook;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (_, key, value) => Reflect.set(target, key, value, target),
  });
}

/** The same device but for `hooks`; nothing is switched off on it. */
export function hookedDevice(gpu: Gpu, hooks: Hooks<GPUDevice>): Gpu {
  return { ...gpu, device: replaced(gpu.device, hooks), off: new Set() };
}
