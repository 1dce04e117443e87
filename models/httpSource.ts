/** Checkpoints over HTTP, read by range. Files on disk: `device/nodeFiles.ts`. */
import { SourceError } from "../device/errors.ts";
import type { ByteSource, Folder } from "../device/files.ts";
import {
  type Answer,
  type ContentRange,
  contentRange,
  get,
  type HttpOptions,
  isEncoded,
  isPage,
  wholeLimit,
} from "../device/httpRequest.ts";
import { checkName, checkRange } from "../device/sourceChecks.ts";
import { escapeBytes, escapeName } from "./weights/escape.ts";

/** Bytes asked for when a file is opened: enough for `config.json` or the header of a model, so that small files take one request. */
const FIRST_READ = 64 * 1024;

/** Bytes of one request: what a fault costs at most. */
const PIECE = 8 * 1024 * 1024;

/**
 * A file over HTTP, read by range requests, or whole where the server answers none. Throws SOURCE_MISSING for 404 and 410,
 * SOURCE_HTML for a page in the file's place, SOURCE_HTTP for a status that is final, SOURCE_NETWORK after retries; reads throw
 * SOURCE_CHANGED once size, ETag or date differ from those at opening, and SOURCE_RANGE for other bytes than asked.
 */
export async function httpSource(url: string | URL, options: HttpOptions): Promise<ByteSource> {
  const target = parsed(url);
  const source = await openHttp(target, options);
  if (source === undefined)
    throw new SourceError("SOURCE_MISSING", `${printed(target)}: no such file; check the address`);
  return source;
}

/** A hub-style folder over HTTP. `url` is the folder's; a query in it goes with every file. */
export function httpFolder(url: string | URL, options: HttpOptions): Folder {
  const base = parsed(url);
  base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const location = printed(base);
  let configFound = false;
  return {
    location,
    open: async (name) => {
      checkName(location, name);
      try {
        return await openHttp(inFolder(base, name), options);
      } catch (error) {
        // A server of single-page applications answers every missing name with its page. Where config.json is no page, this one
        // is such an answer; where it is one too (a login, say), the page is the news.
        if (!isCode(error, "SOURCE_HTML") || name === "config.json") throw error;
        configFound ||= await hasConfig(base, options);
        if (!configFound) throw error;
        return undefined;
      }
    },
  };
}

async function hasConfig(base: URL, options: HttpOptions): Promise<boolean> {
  try {
    const source = await openHttp(inFolder(base, "config.json"), options);
    await source?.close();
    return source !== undefined;
  } catch (error) {
    if (isCode(error, "SOURCE_HTML")) return false;
    throw error;
  }
}

function inFolder(base: URL, name: string): URL {
  const url = new URL(base);
  url.pathname += name.split("/").map(encodeURIComponent).join("/");
  return url;
}

// What identifies a version of a file. Null where the server says nothing, or a browser may not see it.
interface Version {
  readonly etag: string | null;
  readonly modified: string | null;
}

type Opened =
  | { readonly kind: "missing" }
  | { readonly kind: "unchecked" }
  | { readonly kind: "whole"; readonly bytes: Uint8Array; readonly version: Version }
  | { readonly kind: "ranges"; readonly size: number; readonly first: Uint8Array; readonly version: Version };

async function openHttp(url: URL, options: HttpOptions): Promise<ByteSource | undefined> {
  const name = printed(url);
  let opened = await askForFirst(url, name, options);
  if (opened.kind === "unchecked")
    opened = await get(options, { url, name }, (answer) => takeWhole(answer, name, options));
  if (opened.kind === "missing") return undefined;
  if (opened.kind === "unchecked")
    throw new SourceError("SOURCE_RANGE", `${name}: answers with a range that was not asked for; the server is broken`);
  const first = opened.kind === "whole" ? opened.bytes : opened.first;
  checkNoPage(name, first);
  return new HttpFile(url, name, options, opened);
}

async function askForFirst(url: URL, name: string, options: HttpOptions): Promise<Opened> {
  try {
    const range = { begin: 0, end: FIRST_READ };
    return await get(options, { url, name, range }, (answer) => takeFirst(answer, name, options));
  } catch (error) {
    if (!isCode(error, "SOURCE_NETWORK")) throw error;
    // A range across origins may be refused before it is sent where a plain GET is not.
    return await get(options, { url, name, attempts: 1 }, (answer) => takeWhole(answer, name, options)).catch(() => {
      throw error;
    });
  }
}

async function takeFirst(answer: Answer, name: string, options: HttpOptions): Promise<Opened> {
  const { response } = answer;
  if (response.status === 206) {
    const range = contentRange(response);
    if (range === undefined || isEncoded(response)) {
      await answer.discard();
      return { kind: "unchecked" };
    }
    const end = Math.min(FIRST_READ, range.size);
    if (range.begin !== 0 || range.end !== end) throw wrongRange(name, range, 0, end);
    return { kind: "ranges", size: range.size, first: await answer.exactly(end), version: versionOf(response) };
  }
  if (response.status === 416) {
    await answer.discard(); // how servers say that an empty file has no first byte
    return { kind: "unchecked" };
  }
  return await takeWhole(answer, name, options);
}

async function takeWhole(answer: Answer, name: string, options: HttpOptions): Promise<Opened> {
  const { response } = answer;
  if (response.status === 200)
    return { kind: "whole", bytes: await answer.upTo(wholeLimit(options)), version: versionOf(response) };
  if (response.status === 404 || response.status === 410) {
    await answer.discard();
    return { kind: "missing" };
  }
  if (response.status === 206) {
    await answer.discard();
    return { kind: "unchecked" };
  }
  throw await refused(answer, name);
}

async function refused(answer: Answer, name: string): Promise<SourceError> {
  const { status } = answer.response;
  const todo = status === 401 || status === 403 ? "does it need a login or a token?" : "check the address";
  return new SourceError(
    "SOURCE_HTTP",
    `${name}: HTTP ${status}, expected 200 or 206; it says "${escapeBytes(await answer.opening())}": ${todo}`,
  );
}

class HttpFile implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #url: URL;
  readonly #options: HttpOptions;
  readonly #version: Version;
  readonly #closed = new AbortController();
  #first: Uint8Array;
  #whole: Promise<Uint8Array> | undefined;

  constructor(url: URL, name: string, options: HttpOptions, opened: Extract<Opened, { kind: "whole" | "ranges" }>) {
    this.name = name;
    this.#url = url;
    this.#options = options;
    this.#version = opened.version;
    this.#first = opened.kind === "whole" ? opened.bytes : opened.first;
    this.size = opened.kind === "whole" ? opened.bytes.length : opened.size;
  }

  async read(begin: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    signal?.throwIfAborted();
    this.#closed.signal.throwIfAborted();
    checkRange(this.name, this.size, begin, end);
    if (end <= this.#first.length) return this.#first.slice(begin, end);
    if (this.#whole !== undefined) return (await this.#whole).slice(begin, end);
    const bytes = new Uint8Array(end - begin);
    for (let at = begin; at < end; at += PIECE) {
      bytes.set(await this.#piece(at, Math.min(at + PIECE, end), signal), at - begin);
    }
    return bytes;
  }

  async close(): Promise<void> {
    this.#first = new Uint8Array(0);
    this.#whole = undefined;
    this.#closed.abort(new SourceError("SOURCE_CLOSED", `${this.name}: read after it was closed`));
  }

  async #piece(begin: number, end: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    if (this.#whole !== undefined) return (await this.#whole).subarray(begin, end);
    const signals = [signal, this.#closed.signal];
    const request = { url: this.#url, name: this.name, range: { begin, end }, signals };
    const bytes = await get(this.#options, request, (answer) => this.#takePiece(answer, begin, end));
    this.#closed.signal.throwIfAborted();
    if (bytes !== undefined) return bytes;
    // The server stopped answering ranges: read the file once and keep it. A failure is not kept.
    this.#whole ??= this.#readWhole().catch((error: unknown) => {
      this.#whole = undefined;
      throw error;
    });
    return (await this.#whole).subarray(begin, end);
  }

  // Undefined where the server did not answer with a range that can be checked.
  async #takePiece(answer: Answer, begin: number, end: number): Promise<Uint8Array | undefined> {
    const { response } = answer;
    if (response.status === 404 || response.status === 410 || response.status === 416) {
      await answer.discard();
      throw this.#changed(`is HTTP ${response.status} now`);
    }
    if (response.status !== 200 && response.status !== 206) throw await refused(answer, this.name);
    this.#checkVersion(response);
    const range = response.status === 206 && !isEncoded(response) ? contentRange(response) : undefined;
    if (range === undefined) {
      await answer.discard();
      return undefined;
    }
    if (range.size !== this.size) throw this.#changed(`has ${range.size} bytes now, had ${this.size}`);
    if (range.begin !== begin || range.end !== end) throw wrongRange(this.name, range, begin, end);
    return await answer.exactly(end - begin);
  }

  async #readWhole(): Promise<Uint8Array> {
    const limit = wholeLimit(this.#options);
    const request = { url: this.#url, name: this.name, signals: [this.#closed.signal] };
    const bytes = await get(this.#options, request, async (answer) => {
      if (answer.response.status !== 200) throw await refused(answer, this.name);
      this.#checkVersion(answer.response);
      return await answer.upTo(limit);
    });
    if (bytes.length !== this.size) throw this.#changed(`has ${bytes.length} bytes now, had ${this.size}`);
    return bytes;
  }

  #checkVersion(response: Response): void {
    const now = versionOf(response);
    const { etag, modified } = this.#version;
    if (etag !== null && now.etag !== null && etag !== now.etag)
      throw this.#changed(`ETag is ${escapeName(now.etag)} now, was ${escapeName(etag)}`);
    if (modified !== null && now.modified !== null && modified !== now.modified) {
      throw this.#changed(`Last-Modified is ${escapeName(now.modified)} now, was ${escapeName(modified)}`);
    }
  }

  #changed(how: string): SourceError {
    return new SourceError(
      "SOURCE_CHANGED",
      `${this.name}: ${how}: it was changed while it was read; load the model again`,
    );
  }
}

// Servers mark the tag of a compressed answer as weak or by a suffix; the file is the same.
function versionOf({ headers }: Response): Version {
  const etag =
    headers
      .get("etag")
      ?.replace(/^W\//, "")
      .replace(/[-;](gzip|br|zstd|deflate)"$/, '"') ?? null;
  return { etag, modified: headers.get("last-modified") };
}

function wrongRange(name: string, got: ContentRange, begin: number, end: number): SourceError {
  const message = `answered with bytes ${got.begin} to ${got.end} of ${got.size}, ${begin} to ${end} were asked for`;
  return new SourceError("SOURCE_RANGE", `${name}: ${message}; the server or a cache before it is broken`);
}

// No file of a checkpoint is a page, whatever its status and type say.
function checkNoPage(name: string, first: Uint8Array): void {
  if (!isPage(first)) return;
  const message = `is a web page that begins with "${escapeBytes(first)}", expected a file`;
  throw new SourceError("SOURCE_HTML", `${name}: ${message}; is the address right, and does it need a login?`);
}

function parsed(url: string | URL): URL {
  const target = URL.canParse(String(url)) ? new URL(url) : undefined;
  if (target?.protocol === "https:" || target?.protocol === "http:") return target;
  throw new SourceError(
    "SOURCE_NAME",
    `${escapeName(String(url))}: is not an address, expected one that begins with https://`,
  );
}

// As shown in messages: without user, password and query, which may hold secrets.
function printed(url: URL): string {
  return url.origin + url.pathname;
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof SourceError && error.code === code;
}
