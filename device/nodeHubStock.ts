/** What is in the cache of downloads, and how it is taken out again. */
import { lstat, readdir, readFile, readlink, realpath, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { REPO_ID_SEPARATOR } from "@huggingface/hub";
import { SourceError } from "./errors.ts";
import { missingFiles, RepoCache } from "./nodeHubCache.ts";
import { writing } from "./nodeHubErrors.ts";
import { withLock } from "./nodeHubLock.ts";

/** A commit of a model in the cache. */
export interface CachedRevision {
  readonly commit: string;
  /** Branches and tags that were this commit when they were looked up. */
  readonly refs: readonly string[];
  readonly path: string;
  /** Bytes of its files. Commits share files that are the same. */
  readonly bytes: number;
  /** When a file of it was last read, as far as the file system notes that. */
  readonly lastUsed: Date;
  /** Whether ingle would load it without asking the hub. */
  readonly complete: boolean;
}

/** A model in the cache. */
export interface CachedModel {
  readonly name: string;
  readonly revisions: readonly CachedRevision[];
  /** Bytes of downloads that were broken off. */
  readonly unfinished: number;
}

const PREFIX = `models${REPO_ID_SEPARATOR}`;
const SHORTEST_COMMIT = 6; // characters of a commit that are enough to name it

/** Every model in the cache, by name. */
export async function cachedModels(cache: string): Promise<CachedModel[]> {
  const entries = await readdir(cache, { withFileTypes: true }).catch(() => []); // nothing was downloaded yet
  const folders = entries.filter((entry) => entry.isDirectory() && entry.name.startsWith(PREFIX));
  const names = folders.map((entry) => entry.name.slice(PREFIX.length).split(REPO_ID_SEPARATOR).join("/"));
  return await Promise.all(names.sort().map((name) => cachedModel(cache, name)));
}

async function cachedModel(cache: string, name: string): Promise<CachedModel> {
  const repo = new RepoCache(cache, name);
  const refs = await refsOf(repo);
  const commits = (await readdir(repo.snapshots).catch(() => [])).sort();
  const revisions = await Promise.all(
    commits.map(async (commit) => {
      const path = repo.snapshot(commit);
      const files = await filesUnder(path);
      const found = (await Promise.all(files.map((file) => stat(file).catch(() => undefined)))).filter(
        (it) => it !== undefined,
      );
      return {
        commit,
        refs: refs.filter((ref) => ref.commit === commit).map((ref) => ref.name),
        path,
        bytes: found.reduce((sum, { size }) => sum + size, 0),
        lastUsed: new Date(Math.max(0, ...found.map(({ atimeMs }) => atimeMs))),
        complete: (await missingFiles(path)).length === 0,
      };
    }),
  );
  const partials = (await filesUnder(repo.blobs)).filter((file) => file.endsWith(".incomplete"));
  const sizes = await Promise.all(partials.map((file) => bytesOf(file)));
  return { name, revisions, unfinished: sizes.reduce((sum, bytes) => sum + bytes, 0) };
}

async function refsOf(
  repo: RepoCache,
): Promise<{ readonly name: string; readonly commit: string; readonly path: string }[]> {
  const paths = await filesUnder(repo.refs);
  return await Promise.all(
    paths.map(async (path) => {
      const name = path
        .slice(repo.refs.length + 1)
        .split(sep)
        .join("/");
      return { name, path, commit: (await readFile(path, "utf8").catch(() => "")).trim() };
    }),
  );
}

/** What would be removed. */
export interface Removal {
  readonly name: string;
  readonly repo: RepoCache;
  /** Undefined: all of them, and what was broken off. */
  readonly revision: CachedRevision | undefined;
  /** Files that go. */
  readonly files: readonly string[];
  /** Bytes that this frees. */
  readonly bytes: number;
}

/**
 * What removing a model from the cache means, or one revision of it: a branch, a tag, a commit or the beginning of one. Throws
 * SOURCE_MISSING where it is not there, SOURCE_NAME where its folder is a link that leads out of the cache.
 */
export async function planRemoval(cache: string, name: string, revision: string | undefined): Promise<Removal> {
  const repo = new RepoCache(cache, name);
  await checkInside(cache, repo, name);
  const { revisions } = await cachedModel(cache, name);
  const one = revision === undefined ? undefined : chosen(name, revision, revisions);
  const all = one === undefined || revisions.length === 1;
  const files = all ? await filesUnder(repo.folder) : await filesOfOne(repo, one, revisions);
  const sizes = await Promise.all(files.map((file) => bytesOf(file)));
  return { name, repo, revision: all ? undefined : one, files, bytes: sizes.reduce((sum, bytes) => sum + bytes, 0) };
}

/** Removes what was planned. Names go before what they name, so that nothing that is cut short looks complete. */
export async function remove({ name, repo, revision, files }: Removal): Promise<void> {
  const onWait = () => {
    throw new SourceError("SOURCE_BUSY", `${name}: another process is downloading it; wait for it, or stop it first`);
  };
  await withLock(repo.lock, { onWait }, () =>
    writing(repo.folder, async () => {
      const folders = revision === undefined ? [repo.refs, repo.snapshots, repo.folder] : [];
      const refs = files.filter((file) => dirname(file).startsWith(repo.refs));
      for (const file of refs) await rm(file, { force: true });
      if (revision !== undefined) await rm(revision.path, { recursive: true, force: true });
      for (const folder of folders) await rm(folder, { recursive: true, force: true });
      if (revision !== undefined) for (const file of files) await rm(file, { force: true });
    }),
  );
}

function chosen(name: string, revision: string, revisions: readonly CachedRevision[]): CachedRevision {
  const found = revisions.filter(
    ({ commit, refs }) =>
      refs.includes(revision) || (revision.length >= SHORTEST_COMMIT && commit.startsWith(revision)),
  );
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  const there = revisions.map(({ commit, refs }) => [...refs, commit.slice(0, 12)].join(" = ")).join(", ");
  const what = found.length === 0 ? "is not in the cache" : "may be several";
  throw new SourceError("SOURCE_MISSING", `${name}@${revision}: ${what}; there are ${there || "none"}`);
}

/** The links, names and blobs that only this revision has. */
async function filesOfOne(
  repo: RepoCache,
  one: CachedRevision,
  revisions: readonly CachedRevision[],
): Promise<string[]> {
  const others = revisions.filter((it) => it !== one);
  const kept = new Set((await Promise.all(others.map(({ path }) => targetsOf(path)))).flat());
  const own = (await targetsOf(one.path)).filter((target) => dirname(target) === repo.blobs && !kept.has(target));
  const refs = (await refsOf(repo)).filter(({ commit }) => commit === one.commit).map(({ path }) => path);
  return [...refs, ...(await filesUnder(one.path)), ...new Set(own)];
}

/** Where the links of a snapshot lead, one step. */
async function targetsOf(snapshot: string): Promise<string[]> {
  const files = await filesUnder(snapshot);
  const targets = files.map(async (file) => {
    const target = await readlink(file).catch(() => undefined); // a copy, where there are no links
    return target === undefined ? [] : [resolve(dirname(file), target)];
  });
  return (await Promise.all(targets)).flat();
}

async function checkInside(cache: string, repo: RepoCache, name: string): Promise<void> {
  const found = await lstat(repo.folder).catch(() => undefined);
  if (found === undefined) {
    throw new SourceError("SOURCE_MISSING", `${name}: is not in the cache ${cache}; \`ingle ls\` lists what is`);
  }
  const inside = dirname(resolve(repo.folder)) === resolve(cache) && basename(repo.folder).startsWith(PREFIX);
  const real = join(await realpath(cache), basename(repo.folder));
  if (inside && found.isDirectory() && (await realpath(repo.folder)) === real) return;
  const message = `${repo.folder} is not a folder of the cache, but leads out of it; remove it by hand`;
  throw new SourceError("SOURCE_NAME", `${name}: ${message}`);
}

/** Files and links at any depth; links are not followed. */
async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const lists = entries.map(async (entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? await filesUnder(path) : [path];
  });
  return (await Promise.all(lists)).flat();
}

async function bytesOf(file: string): Promise<number> {
  const found = await lstat(file).catch(() => undefined);
  return found?.isFile() === true ? found.size : 0;
}
