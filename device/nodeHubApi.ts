/** What the hub says of a repository: its commit and its files with their hashes, asked through the hub's own client. */
import { listFiles, modelInfo } from "@huggingface/hub";
import { SourceError } from "./errors.ts";
import { get, type HttpOptions, isPage } from "./httpRequest.ts";
import { type HubId, isCommit } from "./hubId.ts";
import { type Asked, askedText, refusal } from "./nodeHubErrors.ts";
import type { HubSettings } from "./nodeHubSettings.ts";
import { staysInside } from "./sourceChecks.ts";

/** Bytes of one answer; a page of a listing has a thousand files. */
const ANSWER_LIMIT = 64 * 2 ** 20;

/** How the hub is asked. */
export interface Hub {
  readonly settings: HubSettings;
  readonly http: HttpOptions;
  /** Of looking things up; unset: as many as for files. */
  readonly attempts?: number;
}

/** One file as the hub lists it. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  /** `sha256` of large files, which git holds a pointer to; `blob`, git's own SHA-1 over a header and the bytes, of others. */
  readonly hash: { readonly kind: "sha256" | "blob"; readonly hex: string };
}

/** A revision as it is now: its commit, and the paths of all files. */
export interface HubRevision {
  readonly commit: string;
  readonly paths: readonly string[];
}

/** Throws SOURCE_MISSING, SOURCE_DENIED, SOURCE_HTTP, SOURCE_HTML, and SOURCE_NETWORK or SOURCE_RATE_LIMIT after retries. */
export async function resolveRevision(hub: Hub, { name, revision }: HubId): Promise<HubRevision> {
  const asked = { name, revision };
  const additionalFields = ["sha" as const, "filePaths" as const];
  const { sha, filePaths } = await understood(hub, asked, () =>
    modelInfo({ name, revision, additionalFields, ...clientOptions(hub, asked) }),
  );
  if (typeof sha !== "string" || !isCommit(sha)) throw strange(asked, "it names no commit");
  return { commit: sha, paths: filePaths.filter((path) => typeof path === "string" && staysInside(path)) };
}

/** Every file of a commit. Throws as `resolveRevision`. */
export async function listCommit(hub: Hub, name: string, commit: string): Promise<Map<string, HubFile>> {
  const asked = { name, revision: commit };
  return await understood(hub, asked, async () => {
    const files = new Map<string, HubFile>();
    const pages = listFiles({ repo: name, revision: commit, recursive: true, ...clientOptions(hub, asked) });
    for await (const { type, path, size, oid, lfs } of pages) {
      if (type !== "file" || typeof path !== "string" || !staysInside(path)) continue;
      const hash = lfs === undefined ? { kind: "blob" as const, hex: oid } : { kind: "sha256" as const, hex: lfs.oid };
      files.set(path, { path, size: lfs?.size ?? size, hash: { kind: hash.kind, hex: String(hash.hex) } });
    }
    return files;
  });
}

/** Where a file of a commit is fetched. */
export function fileUrl({ settings }: Hub, name: string, commit: string, path: string): URL {
  return new URL(`${settings.endpoint}/${name}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`);
}

/** Options for a request: the token goes to the hub's own address and nowhere else. */
export function withToken(
  { settings, http }: Hub,
  url: URL,
  headers: Readonly<Record<string, string>> = {},
): HttpOptions {
  const own = settings.token !== undefined && url.origin === new URL(settings.endpoint).origin;
  return { ...http, headers: { ...headers, ...(own ? { authorization: `Bearer ${settings.token}` } : {}) } };
}

// The client throws whatever an answer of another shape makes it trip over.
async function understood<T>(hub: Hub, asked: Asked, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (cause) {
    if (cause instanceof SourceError || hub.http.signal?.aborted === true) throw cause;
    throw strange(asked, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

function strange(asked: Asked, what: string, cause?: unknown): SourceError {
  const message = `the hub's answer is not understood (${what}), expected a model's description; is HF_ENDPOINT right?`;
  return new SourceError("SOURCE_HTTP", `${askedText(asked)}: ${message}`, { cause });
}

function clientOptions(hub: Hub, asked: Asked): { hubUrl: string; fetch: typeof fetch } {
  return { hubUrl: hub.settings.endpoint, fetch: (input, init) => askHub(hub, asked, input, init) };
}

/** A `fetch` for the client, which has neither retries nor typed errors of its own, and takes tokens of one kind only. */
async function askHub(hub: Hub, asked: Asked, input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const url = new URL(input instanceof Request ? input.url : input);
  const where = askedText(asked);
  const options = withToken(hub, url, Object.fromEntries(new Headers(init?.headers)));
  return await get(options, { url, name: where, attempts: hub.attempts }, async (answer) => {
    const { status, ok, headers } = answer.response;
    if (!ok) throw await refusal(answer, asked, hub.settings);
    const bytes = await answer.upTo(ANSWER_LIMIT);
    if (!isPage(bytes)) return new Response(bytes.slice(), { status, headers });
    const message = `${url.origin} answers with a web page, expected JSON; does the network want a login, and is HF_ENDPOINT right?`;
    throw new SourceError("SOURCE_HTML", `${where}: ${message}`);
  });
}
