/** Why a measurement does not count. */
import { IngleError } from "../device/errors.ts";

/** What was measured is not what was asked for, or may not be measured: kernels that failed, prompts that were cached. */
export class BenchError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("BENCH", message, options);
  }
}
