/** Errors of checkpoints: what is broken, what is whole but not supported, and what a chat template refuses. */
import { IngleError } from "../device/errors.ts";

/** A file of the checkpoint is broken or contradicts another one. `code` names the rule (see docs/checkpoints.md), `tensor` the tensor at fault. */
export class ModelFormatError extends IngleError {
  readonly tensor: string | undefined;
  constructor(code: string, message: string, options?: ErrorOptions & { tensor?: string }) {
    super(code, message, options);
    this.tensor = options?.tensor;
  }
}

/** The checkpoint is well formed, but ingle does not run this architecture, option or quantization. */
export class UnsupportedModelError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("UNSUPPORTED_MODEL", message, options);
  }
}

/** The template refused the messages, or did more than a template may. */
export class ChatTemplateError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("CHAT_TEMPLATE", message, options);
  }
}
