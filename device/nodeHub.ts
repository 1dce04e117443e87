/** Models of the hub in the shared cache: found there, or downloaded, complete and checked. */
import { SourceError } from "./errors.ts";
import type { HttpOptions } from "./httpRequest.ts";
import { type HubId, hubIdText, isCommit } from "./hubId.ts";
import { checkHolds, listed, smallFiles } from "./hubSelection.ts";
import { type Hub, listCommit, resolveRevision } from "./nodeHubApi.ts";
import { missingFiles, RepoCache } from "./nodeHubCache.ts";
import { hasCode } from "./nodeHubErrors.ts";
import { withLock } from "./nodeHubLock.ts";
import { Pull, type PullOptions } from "./nodeHubPull.ts";
import { type HubSettings, hubSettings } from "./nodeHubSettings.ts";

/** Attempts at looking a revision up where a copy of it is at hand: nobody should wait long for nothing. */
const WITH_A_COPY = 2;

/** How a model is looked up and downloaded. */
export interface DownloadOptions extends PullOptions {
  /** Unset: from the environment. */
  readonly settings?: HubSettings;
  /** Replaced in tests. */
  readonly http?: Partial<HttpOptions>;
}

/** A complete model on disk. */
export interface Snapshot {
  readonly commit: string;
  readonly path: string;
}

/**
 * The folder of a model on the hub. The branch or tag is looked up once; what is there already is not fetched again. A cached copy
 * serves where the hub cannot be reached, or HF_HUB_OFFLINE forbids it. Throws SOURCE_OFFLINE where there is none, and the errors of
 * `resolveRevision` and `download`.
 */
export async function pullModel(id: HubId, options: DownloadOptions = {}): Promise<Snapshot> {
  const settings = options.settings ?? (await hubSettings());
  const repo = new RepoCache(settings.cache, id.name);
  const found = await cached(repo, id);
  if ("path" in found && (settings.offline || isCommit(id.revision))) return found;
  if (settings.offline) throw offline(id, "path" in found ? [] : found.missing, settings);
  const http = { fetch: globalThis.fetch, signal: options.signal, ...options.http };
  const hub = { settings, http, ...("path" in found ? { attempts: WITH_A_COPY } : {}) };
  try {
    return await pull(hub, repo, id, options);
  } catch (error) {
    if (!hasCode(error, "SOURCE_NETWORK", "SOURCE_RATE_LIMIT")) throw error;
    if (!("path" in found)) throw error;
    options.onNote?.(
      `${String(error instanceof Error ? error.message : error)}; using ${found.commit.slice(0, 12)} from the cache`,
    );
    return found;
  }
}

async function cached(
  repo: RepoCache,
  { revision }: HubId,
): Promise<Snapshot | { readonly missing: readonly string[] }> {
  const commit = await repo.commitOf(revision);
  if (commit === undefined) return { missing: [] };
  const path = repo.snapshot(commit);
  const missing = await missingFiles(path);
  return missing.length === 0 ? { commit, path } : { missing };
}

function offline(id: HubId, missing: readonly string[], { cache }: HubSettings): SourceError {
  const what =
    missing.length === 0
      ? `is not in the cache ${cache}`
      : `is not whole in the cache ${cache}: ${listed(missing)} missing`;
  return new SourceError(
    "SOURCE_OFFLINE",
    `${hubIdText(id)}: ${what}, and HF_HUB_OFFLINE is set; unset it and pull once`,
  );
}

async function pull(hub: Hub, repo: RepoCache, id: HubId, options: DownloadOptions): Promise<Snapshot> {
  const { commit, paths } = await resolveRevision(hub, id);
  checkHolds(hubIdText(id), paths);
  const path = repo.snapshot(commit);
  if ((await missingFiles(path, smallFiles(paths))).length > 0) {
    const files = await listCommit(hub, id.name, commit);
    const onWait = () => options.onNote?.(`${id.name}: another process is downloading it; waiting`);
    await withLock(repo.lock, { signal: options.signal, onWait }, (tookOver) =>
      new Pull(hub, repo, { name: id.name, commit, files }, options).run(tookOver),
    );
  }
  if ((await repo.commitOf(id.revision)) !== commit) {
    await withLock(repo.lock, options, () => repo.setCommit(id.revision, commit)).catch((error: unknown) => {
      if (!hasCode(error, "SOURCE_READ_ONLY")) throw error; // a cache that others fill is read all the same
    });
  }
  return { commit, path };
}
