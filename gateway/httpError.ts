/** Errors as HTTP tells them: a status, and a body in OpenAI's shape. */
import { DeviceLostError, IngleError, OutOfMemoryError } from "../device/errors.ts";
import { AbortError, ContextLengthError, InvalidRequestError } from "../engine/errors.ts";
import { RequestFieldError } from "../engine/openai/fields.ts";
import { ChatTemplateError } from "../models/errors.ts";

/** The kinds of OpenAI's API. */
type ErrorType = "invalid_request_error" | "authentication_error" | "overloaded_error" | "server_error";

/** What an error's body says. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: ErrorType;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** An error that the server itself finds. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  readonly body: ErrorBody;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    details: { type?: ErrorType; param?: string; code?: string; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    const { type = "invalid_request_error", param = null, code = null, headers = {} } = details;
    this.status = status;
    this.body = { error: { message, type, param, code } };
    this.headers = headers;
  }
}

/** Asks a client to come back: as soon as a request may have ended. */
export const RETRY_SOON = { "retry-after": "1" } as const;

/** Any error as one of HTTP. A fault of ours says nothing of its inside. */
export function httpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof RequestFieldError) return new HttpError(400, error.message, { param: error.param });
  if (error instanceof ContextLengthError)
    return new HttpError(400, error.message, { code: "context_length_exceeded" });
  if (error instanceof InvalidRequestError) return new HttpError(400, error.message);
  if (error instanceof ChatTemplateError) return new HttpError(400, error.message, { param: "messages" });
  if (error instanceof AbortError || error instanceof DeviceLostError || error instanceof OutOfMemoryError) {
    const details = { type: "server_error", code: error.code.toLowerCase(), headers: RETRY_SOON } as const;
    return new HttpError(503, error.message, details);
  }
  if (error instanceof IngleError)
    return new HttpError(500, error.message, { type: "server_error", code: error.code.toLowerCase() });
  return new HttpError(500, "the server failed at this request; its log says where", { type: "server_error" });
}

/** Whether an error is a fault of ours, which the log must show. */
export function isFault(error: unknown): boolean {
  return !(error instanceof HttpError) && !(error instanceof IngleError);
}

/** What a server answers whose model is not there yet. */
export function loadingResponse(): Response {
  const details = { type: "server_error", code: "loading", headers: RETRY_SOON } as const;
  return errorResponse(new HttpError(503, "the model is being loaded; try again", details));
}

/** The response that tells an error. */
export function errorResponse(error: unknown): Response {
  const { status, body, headers } = httpError(error);
  return Response.json(body, { status, headers });
}
