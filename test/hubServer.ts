/** A hub on this machine: its API and files for the repositories that a test puts there, and large files at another origin as on the real one. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What came in. `place` tells the two origins apart. */
export interface Seen {
  readonly place: "hub" | "store";
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Answers a request itself and returns true, or leaves it to the honest server. */
export type Intercept = (request: IncomingMessage, response: ServerResponse, seen: Seen) => boolean;

const LARGE = /\.(safetensors|bin|gguf)$/; // kept by LFS: listed with their SHA-256, and stored elsewhere

/** One commit of a repository. */
export class HubRepo {
  readonly commit: string;
  readonly files = new Map<string, Uint8Array>();
  /** Hashes that are listed although the files have others. */
  readonly wrongHashes = new Map<string, string>();
  /** Sizes that are listed although the files have others. */
  readonly wrongSizes = new Map<string, number>();

  constructor(commit: string, files: Readonly<Record<string, string | Uint8Array>>) {
    this.commit = commit;
    for (const [path, text] of Object.entries(files)) {
      this.files.set(path, typeof text === "string" ? new TextEncoder().encode(text) : text);
    }
  }

  /** The name of a file's blob. */
  hash(path: string): string {
    const bytes = this.files.get(path) ?? new Uint8Array(0);
    return this.wrongHashes.get(path) ?? (LARGE.test(path) ? sha256(bytes) : gitHash(bytes));
  }

  tree(): unknown[] {
    return Array.from(this.files, ([path, bytes]) => {
      const size = this.wrongSizes.get(path) ?? bytes.length;
      const entry = { type: "file", path, size, oid: LARGE.test(path) ? gitHash(new Uint8Array(0)) : this.hash(path) };
      return LARGE.test(path) ? { ...entry, lfs: { oid: this.hash(path), size, pointerSize: 130 } } : entry;
    });
  }
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const gitHash = (bytes: Uint8Array) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** Two servers: the hub, and the store that its large files are at. */
export class HubServer {
  readonly repos = new Map<string, HubRepo>();
  seen: Seen[] = [];
  intercept: Intercept = () => false;
  readonly #hub: Server;
  readonly #store: Server;

  constructor() {
    this.#hub = createServer((request, response) => this.#answer("hub", request, response));
    this.#store = createServer((request, response) => this.#answer("store", request, response));
  }

  async start(): Promise<void> {
    for (const server of [this.#hub, this.#store])
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  }

  stop(): void {
    for (const server of [this.#hub, this.#store]) {
      server.closeAllConnections();
      server.close();
    }
  }

  get endpoint(): string {
    return originOf(this.#hub);
  }

  /** Where large files are. */
  get store(): string {
    return originOf(this.#store);
  }

  /** Requests for the bytes of a file, at the place that has them. */
  fetches(path: string): Seen[] {
    const place = LARGE.test(path) ? "store" : "hub";
    return this.seen.filter((it) => it.place === place && it.path.endsWith(`/${path}`));
  }

  #answer(place: Seen["place"], request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "", "http://hub");
    const { range, authorization } = request.headers;
    const seen = { place, path: decodeURIComponent(url.pathname), range, authorization };
    this.seen.push(seen);
    if (this.intercept(request, response, seen)) return;
    if (place === "store") this.#file(request, response, seen.path);
    else if (url.pathname.startsWith("/api/")) this.#api(response, url, seen.path);
    else this.#resolve(request, response, seen.path);
  }

  #api(response: ServerResponse, url: URL, path: string): void {
    const [, name = "", what, revision = ""] =
      /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path) ?? [];
    const repo = this.repos.get(name);
    if (repo === undefined) {
      response.writeHead(401, { "x-error-code": "RepoNotFound" }).end("{}");
    } else if (!["main", "v1", repo.commit].includes(revision)) {
      response.writeHead(404, { "x-error-code": "RevisionNotFound" }).end("{}");
    } else if (what === "revision") {
      json(response, { _id: "1", id: name, sha: repo.commit, siblings: siblings(repo) });
    } else {
      // In pages of two, as the hub pages by a thousand.
      const from = Number(url.searchParams.get("cursor") ?? 0);
      const all = repo.tree();
      const next = `${this.endpoint}${url.pathname}?recursive=true&cursor=${from + 2}`;
      json(response, all.slice(from, from + 2), from + 2 < all.length ? { link: `<${next}>; rel="next"` } : {});
    }
  }

  #resolve(request: IncomingMessage, response: ServerResponse, path: string): void {
    if (LARGE.test(path)) return void response.writeHead(302, { location: this.store + path }).end();
    this.#file(request, response, path);
  }

  #file(request: IncomingMessage, response: ServerResponse, path: string): void {
    const [, name = "", commit, file = ""] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path) ?? [];
    const repo = this.repos.get(name);
    const bytes = repo?.commit === commit ? repo?.files.get(file) : undefined;
    if (bytes === undefined) return void response.writeHead(404, { "x-error-code": "EntryNotFound" }).end();
    serve(request, response, bytes);
  }
}

/** An honest answer with a file, in ranges too. */
export function serve(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array): void {
  const begin = rangeBegin(request);
  if (begin === undefined) return void response.writeHead(200, { "content-length": bytes.length }).end(bytes);
  const body = bytes.subarray(begin);
  const range = `bytes ${begin}-${bytes.length - 1}/${bytes.length}`;
  response.writeHead(206, { "content-length": body.length, "content-range": range }).end(body);
}

/** Where the range that is asked for begins, or undefined where the whole file is asked for. */
export function rangeBegin(request: IncomingMessage): number | undefined {
  const match = /^bytes=(\d+)-\d+$/.exec(request.headers.range ?? "");
  return match === null ? undefined : Number(match[1]);
}

function siblings({ files }: HubRepo): { rfilename: string }[] {
  return [...files.keys()].map((rfilename) => ({ rfilename }));
}

function json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
}

function originOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
