/** Errors that a caller can tell apart by class and by `code`. Messages read "where: what is, what was expected; what to do". */

/** Base of every error that ingle throws on purpose. `code` is stable and may be switched on. */
export class IngleError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** No WebGPU adapter, or none that matches the selector. */
export class AdapterUnavailableError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("ADAPTER_UNAVAILABLE", message, options);
  }
}

/** The device refused an allocation, or the memory plan does not fit. */
export class OutOfMemoryError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("OUT_OF_MEMORY", message, options);
  }
}

/** The device went away. */
export class DeviceLostError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("DEVICE_LOST", message, options);
  }
}

/** WebGPU rejected a call or a shader: a bug of ingle or of a driver, never of the user. */
export class GpuValidationError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("GPU_VALIDATION", message, options);
  }
}

/**
 * A file or URL could not be read as asked. Codes: SOURCE_NAME (a name that leaves its folder), SOURCE_MISSING, SOURCE_SHORT
 * (ends before the bytes asked for), SOURCE_CHANGED (while it was read), SOURCE_CLOSED, SOURCE_IO, SOURCE_HTTP (a status that is
 * final), SOURCE_NETWORK (given up after retries), SOURCE_RANGE (other bytes than asked), SOURCE_HTML (a page), SOURCE_TOO_LARGE.
 */
export class SourceError extends IngleError {}
