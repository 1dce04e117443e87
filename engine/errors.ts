/** Errors of requests. */
import { IngleError } from "../device/errors.ts";

/** Prompt, or prompt and answer, pass the context. */
export class ContextLengthError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("CONTEXT_LENGTH", message, options);
  }
}

/** A field of a request is unknown, out of range or contradicts another. */
export class InvalidRequestError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("INVALID_REQUEST", message, options);
  }
}

/** The caller's signal ended the work. */
export class AbortError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("ABORTED", message, options);
  }
}

/** The model's logits hold a NaN or an infinity: its weights do, or a kernel is wrong on this adapter. */
export class NonFiniteError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("NON_FINITE", message, options);
  }
}
