/** Downloads the files of one commit that an engine reads into the cache, and links them into a snapshot. */
import { mkdir, readFile, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SourceError } from "./errors.ts";
import { listed, SINGLE_WEIGHTS, shardsOf, smallFiles, WEIGHT_INDEX } from "./hubSelection.ts";
import type { Hub, HubFile } from "./nodeHubApi.ts";
import { parsed, type RepoCache, sizeOf } from "./nodeHubCache.ts";
import { download, partialPath } from "./nodeHubDownload.ts";
import { writing } from "./nodeHubErrors.ts";
import { untouched } from "./nodeHubPartial.ts";

/** Files downloaded at once: enough to fill a line, few enough for the hub's limits. */
const TOGETHER = 4;

/** How far a download is. */
export interface DownloadProgress {
  /** The file that grew. */
  readonly file: string;
  /** Bytes of all files, with those that an earlier run left. */
  readonly loaded: number;
  readonly total: number;
}

/** What a download tells meanwhile, and what ends it. */
export interface PullOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** A sentence for the user, such as that a copy from the cache is used. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/** A commit, and what is in it. */
export interface Commit {
  readonly name: string;
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

/** One commit's way into the cache: small files, then weights, then the links that make a snapshot of them. */
export class Pull {
  readonly #hub: Hub;
  readonly #repo: RepoCache;
  readonly #name: string;
  readonly #commit: string;
  readonly #files: ReadonlyMap<string, HubFile>;
  readonly #options: PullOptions;
  readonly #lengths = new Map<string, number>();
  #shared = true;

  constructor(hub: Hub, repo: RepoCache, { name, commit, files }: Commit, options: PullOptions) {
    this.#hub = hub;
    this.#repo = repo;
    this.#name = name;
    this.#commit = commit;
    this.#files = files;
    this.#options = options;
  }

  /** `tookOver`: an ingle before this one died at it, so that nobody else writes what it left. */
  async run(tookOver: boolean): Promise<void> {
    this.#shared = !tookOver;
    const small = smallFiles([...this.#files.keys()]);
    await this.#fetch(small);
    const weights = await this.#weights();
    await this.#fetch(weights);
    // Last of all config.json, without which a snapshot is no model: however this is cut short, none is half there.
    const links = [...weights, ...small].sort((a, b) => Number(a === "config.json") - Number(b === "config.json"));
    for (const path of links) await this.#repo.link(this.#commit, path, this.#blob(this.#file(path)));
  }

  /** The shards of the index, or the one file. Anything else in the repository is for other programs. */
  async #weights(): Promise<string[]> {
    const index = this.#files.get(WEIGHT_INDEX);
    if (index === undefined) return [SINGLE_WEIGHTS];
    const shards = shardsOf(parsed(await readFile(this.#blob(index), "utf8")));
    const lost = shards.filter((shard) => !this.#files.has(shard));
    if (lost.length === 0) return shards;
    const message = `${WEIGHT_INDEX} names ${lost.length} files that are not in the repository: ${listed(lost)}`;
    throw new SourceError(
      "SOURCE_MISSING",
      `${this.#name}: ${message}; its upload is not finished, try another revision`,
    );
  }

  async #fetch(paths: readonly string[]): Promise<void> {
    const files: HubFile[] = [];
    for (const file of paths.map((path) => this.#file(path))) {
      if ((await sizeOf(this.#blob(file))) !== file.size) files.push(file);
    }
    if (files.length === 0) return;
    await this.#checkSpace(files);
    const total = files.reduce((sum, { size }) => sum + size, 0);
    this.#lengths.clear();
    await someAtOnce(files, this.#options.signal, (file, signal) => this.#download(file, total, signal));
  }

  async #download(file: HubFile, total: number, signal: AbortSignal): Promise<void> {
    const blob = this.#blob(file);
    const onWait = () => this.#options.onNote?.(`${this.#name}/${file.path}: another program writes it; waiting`);
    if (this.#shared) await untouched(partialPath(blob), signal, onWait);
    if ((await sizeOf(blob)) === file.size) return;
    const hub = { ...this.#hub, http: { ...this.#hub.http, signal } };
    await download(hub, { name: this.#name, commit: this.#commit, file, blob }, (length) => {
      this.#lengths.set(file.path, length);
      const loaded = [...this.#lengths.values()].reduce((sum, bytes) => sum + bytes, 0);
      this.#options.onProgress?.({ file: file.path, loaded, total });
    });
  }

  async #checkSpace(files: readonly HubFile[]): Promise<void> {
    const { blobs } = this.#repo;
    await writing(blobs, () => mkdir(blobs, { recursive: true }));
    let needed = 0;
    for (const file of files) needed += file.size - ((await sizeOf(partialPath(this.#blob(file)))) ?? 0);
    const { bavail, bsize } = await statfs(blobs);
    const free = bavail * bsize;
    if (needed <= free) return;
    const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
    const message = `${mebibytes(needed)} are to come, ${mebibytes(free)} are free in ${dirname(blobs)}`;
    throw new SourceError(
      "SOURCE_DISK_FULL",
      `${this.#name}: ${message}; free some space, or choose another cache with HF_HUB_CACHE`,
    );
  }

  #file(path: string): HubFile {
    const file = this.#files.get(path);
    if (file !== undefined) return file;
    throw new SourceError("SOURCE_MISSING", `${this.#name}/${path}: is not in commit ${this.#commit}; try again`);
  }

  #blob({ path, hash }: HubFile): string {
    if (/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash.hex)) return join(this.#repo.blobs, hash.hex);
    const message = `the hub lists it with the hash ${JSON.stringify(hash.hex)}, expected SHA-256 or SHA-1`;
    throw new SourceError("SOURCE_HASH", `${this.#name}/${path}: ${message}; is HF_ENDPOINT right?`);
  }
}

/** Runs `work` on every item, a few at a time. The first failure ends the others, and is thrown when all have ended. */
async function someAtOnce<T>(
  items: readonly T[],
  outer: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const signal = outer === undefined ? stop.signal : AbortSignal.any([outer, stop.signal]);
  const queue = items.values();
  let failed: { readonly reason: unknown } | undefined;
  const worker = async () => {
    for (const item of queue) {
      if (failed !== undefined) return;
      await work(item, signal).catch((reason: unknown) => {
        failed ??= { reason };
        stop.abort(reason);
      });
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, worker));
  if (failed !== undefined) throw failed.reason;
}
