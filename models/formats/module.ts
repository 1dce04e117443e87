/** A module's tensors by the checkpoint's format, or plain where it has none of that format's. */
import { plainModule } from "./plain.ts";
import type { ModuleShape, Quantization, StoredModule, Tensors } from "./stored.ts";

/** Claims the module's tensors; undefined where some are missing, which the claims then report. */
export function storedModule(
  tensors: Tensors,
  shape: ModuleShape,
  quantization: Quantization | null,
): StoredModule | undefined {
  const stored = quantization === null ? null : quantization.module(tensors, shape);
  return stored === null ? plainModule(tensors, shape) : stored;
}
