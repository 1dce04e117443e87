/** What can go wrong with a download, as errors that say what to do. */
import { SourceError } from "./errors.ts";
import type { Answer } from "./httpRequest.ts";
import type { HubSettings } from "./nodeHubSettings.ts";

/** What was asked of the hub: the model, and the file where one was. */
export interface Asked {
  readonly name: string;
  readonly revision: string;
  readonly file?: string;
}

/** As messages begin. */
export function askedText({ name, file }: Asked): string {
  return file === undefined ? name : `${name}/${file}`;
}

/** The error that a refusal of the hub stands for. The body is given back unread: the hub says in headers what matters. */
export async function refusal(answer: Answer, asked: Asked, settings: HubSettings): Promise<SourceError> {
  const { status, headers } = answer.response;
  await answer.discard();
  const where = askedText(asked);
  const page = `${settings.endpoint}/${asked.name}`;
  switch (headers.get("x-error-code") ?? String(status)) {
    case "GatedRepo":
      return new SourceError(
        "SOURCE_DENIED",
        `${where}: is gated (HTTP ${status}); ask for access at ${page}, then ${tokenAdvice(settings)}`,
      );
    case "RevisionNotFound":
      return new SourceError(
        "SOURCE_MISSING",
        `${where}: has no revision ${JSON.stringify(asked.revision)}; give a branch, a tag or a commit behind "@"`,
      );
    case "EntryNotFound":
      return new SourceError("SOURCE_MISSING", `${where}: is listed, but not there (HTTP ${status}); try again later`);
    case "RepoNotFound":
    case "404":
    case "410":
      return new SourceError(
        "SOURCE_MISSING",
        `${where}: is no folder here and no model at ${page} (HTTP ${status}); check the spelling, or ${tokenAdvice(settings)} if it is private`,
      );
    case "401":
    case "403":
      return new SourceError(
        "SOURCE_DENIED",
        `${where}: HTTP ${status}, the hub does not let ${settings.token === undefined ? "strangers" : "this token"} in; ${tokenAdvice(settings)}`,
      );
    default:
      return new SourceError(
        "SOURCE_HTTP",
        `${where}: HTTP ${status} from ${settings.endpoint}, expected 200; is HF_ENDPOINT right?`,
      );
  }
}

function tokenAdvice({ token }: HubSettings): string {
  return token === undefined ? "set HF_TOKEN to a token that may read it" : "give a token in HF_TOKEN that may read it";
}

/** What the file system refused, at `path`. */
export function diskError(path: string, cause: unknown): SourceError {
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown";
  const where = "free some space, or keep downloads elsewhere with HF_HUB_CACHE";
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG")
    return new SourceError("SOURCE_DISK_FULL", `${path}: cannot be written, the disk is full (${code}); ${where}`, {
      cause,
    });
  if (code === "EROFS" || code === "EACCES" || code === "EPERM") {
    const message = `cannot be written (${code}); make the cache writable, or choose another with HF_HUB_CACHE`;
    return new SourceError("SOURCE_READ_ONLY", `${path}: ${message}`, { cause });
  }
  return new SourceError("SOURCE_IO", `${path}: cannot be written (${code}); check the folder of HF_HUB_CACHE`, {
    cause,
  });
}

/** Runs what writes to `path`; throws SourceError where the file system refuses. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof SourceError ? error : diskError(path, error);
  }
}

/** Whether `error` is a SourceError with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof SourceError && codes.includes(error.code);
}
