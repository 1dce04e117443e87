/** The cache of downloads, laid out as the hub's Python tools do: `models--owner--name/{refs,blobs,snapshots/COMMIT}`. */
import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { getRepoFolderName } from "@huggingface/hub";
import { isCommit } from "./hubId.ts";
import { SINGLE_WEIGHTS, shardsOf, WEIGHT_INDEX } from "./hubSelection.ts";
import { writing } from "./nodeHubErrors.ts";

/** Where one repository's files are. Nothing of it need be there yet. */
export class RepoCache {
  readonly folder: string;
  /** Files by their hash. */
  readonly blobs: string;
  /** A folder of links to blobs for every commit. */
  readonly snapshots: string;
  /** Files named after branches and tags, with the commit in them. */
  readonly refs: string;
  readonly lock: string;
  // What is made before it gets its name, and is left behind by a crash: of use to nobody, and in nobody's way.
  readonly #aside: string;

  constructor(cache: string, name: string) {
    const folder = getRepoFolderName({ type: "model", name });
    this.folder = join(cache, folder);
    this.blobs = join(this.folder, "blobs");
    this.snapshots = join(this.folder, "snapshots");
    this.refs = join(this.folder, "refs");
    this.lock = join(cache, ".locks", folder, "ingle.lock");
    this.#aside = `${this.lock}.aside`;
  }

  snapshot(commit: string): string {
    return join(this.snapshots, commit);
  }

  /** The commit of a revision when it was last looked up, or undefined. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = await readFile(join(this.refs, revision), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : undefined;
  }

  /** Notes the commit of a branch or tag. Under the lock alone. */
  async setCommit(revision: string, commit: string): Promise<void> {
    const path = join(this.refs, revision);
    if (isCommit(revision) || (await this.commitOf(revision)) === commit) return;
    await this.#replace(path, (aside) => writeFile(aside, commit));
  }

  /** Puts a blob into a snapshot under its path: as a link, or as a copy where links are not allowed. Under the lock alone. */
  async link(commit: string, path: string, blob: string): Promise<void> {
    const place = join(this.snapshot(commit), path);
    await this.#replace(place, async (aside) => {
      await symlink(relative(dirname(place), blob), aside).catch(() => copyFile(blob, aside)); // Windows asks for a privilege
    });
  }

  /** A file that is there at once and whole: made aside, then named. */
  async #replace(path: string, make: (aside: string) => Promise<void>): Promise<void> {
    const aside = this.#aside;
    await writing(path, async () => {
      await mkdir(dirname(path), { recursive: true });
      await rm(aside, { force: true });
      try {
        await make(aside);
        await rename(aside, path);
      } finally {
        await rm(aside, { force: true });
      }
    });
  }
}

/** Bytes of a file, links followed; undefined where there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true ? found.size : undefined;
}

/**
 * What a snapshot lacks of the files `expected`, and of the weights that they or its own files speak of. Empty: it is complete.
 * Without the hub's list, config.json and the weights are expected; ingle links config.json last.
 */
export async function missingFiles(snapshot: string, expected: readonly string[] = ["config.json"]): Promise<string[]> {
  const missing: string[] = [];
  for (const path of [...expected, ...(await weightFiles(snapshot, expected))]) {
    if ((await sizeOf(join(snapshot, path))) === undefined) missing.push(path);
  }
  return missing;
}

async function weightFiles(snapshot: string, expected: readonly string[]): Promise<string[]> {
  const text = await readFile(join(snapshot, WEIGHT_INDEX), "utf8").catch(() => undefined);
  if (text !== undefined) return shardsOf(parsed(text));
  return expected.includes(WEIGHT_INDEX) ? [] : [SINGLE_WEIGHTS];
}

/** JSON, or undefined where it is none: whoever loads the model says what is wrong with it. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
