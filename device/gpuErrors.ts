/** What WebGPU reports, as the errors that ingle throws. */
import { GpuValidationError, OutOfMemoryError } from "./errors.ts";

/** A GPUError in our own classes; an internal error counts as validation. `where` names what was at work. */
export function typedError(error: GPUError, where: string): OutOfMemoryError | GpuValidationError {
  const words = error.message.split("\n").filter((line) => !/^\s+at /.test(line)); // Dawn adds lines of its own source
  const message = `${where}: ${words.join("\n").trim()}`;
  // By name: in Node, Dawn's classes are no globals.
  const memory = error.constructor.name === "GPUOutOfMemoryError";
  return memory ? new OutOfMemoryError(message, { cause: error }) : new GpuValidationError(message, { cause: error });
}
