/** The library: `import { Engine } from "ingle"`. */

export type { AdapterDescription } from "../device/adapters.ts";
export {
  AdapterUnavailableError,
  DeviceLostError,
  GpuValidationError,
  IngleError,
  OutOfMemoryError,
  SourceError,
} from "../device/errors.ts";
export type { ByteSource, Folder, KeptTexts } from "../device/files.ts";
export { listAdapters } from "../device/gpu.ts";
export { ChatTemplateError, ModelFormatError, UnsupportedModelError } from "../models/errors.ts";
export type { Message } from "../models/text/messages.ts";
export { Engine } from "./engine.ts";
export { AbortError, ContextLengthError, InvalidRequestError, NonFiniteError } from "./errors.ts";
export type { EngineOptions } from "./options.ts";
export type * from "./types.ts";
