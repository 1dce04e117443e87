/** What is known to be wrong with drivers, measured: ingle's kernels avoid all of it, but whoever reads numbers should know. */
import type { AdapterDescription } from "../device/adapters.ts";

interface Fault {
  readonly drivers: RegExp;
  readonly text: string;
}

const FAULTS: readonly Fault[] = [
  {
    drivers: /llvmpipe|lavapipe/i,
    text: "rounding to f16 in registers is dropped; ingle rounds on the way to memory",
  },
  {
    drivers: /llvmpipe|lavapipe/i,
    text: "shaders compile at their first dispatch, some for seconds, until Mesa's cache has them; keep MESA_SHADER_CACHE_DIR",
  },
  { drivers: /swiftshader/i, text: "sin and cos are off by 2e-4 and more; ingle makes its rotations on the CPU" },
  { drivers: /swiftshader/i, text: "tanh(±100) is NaN; ingle clamps what goes in" },
  {
    drivers: /llvmpipe|lavapipe|swiftshader/i,
    text: "NaN and infinity are assumed away by the compiler; ingle looks at the bits",
  },
];

/** One sentence a fault. */
export function knownFaults({ name, architecture }: Pick<AdapterDescription, "name" | "architecture">): string[] {
  return FAULTS.filter(({ drivers }) => drivers.test(`${name} ${architecture}`)).map(({ text }) => text);
}
