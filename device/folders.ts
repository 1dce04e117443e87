/** Folders of the local file system and of the hub's cache in it, where there is one. */
import { SourceError } from "./errors.ts";
import type { Folder } from "./files.ts";
import { type HubId, hubIdText } from "./hubId.ts";
import { importNode } from "./importNode.ts";
import type { DownloadOptions } from "./nodeHub.ts";

/** The folder at a path or file URL. Throws SourceError where there is none, and in a browser. */
export async function openLocalFolder(path: string | URL): Promise<Folder> {
  const files = await importNode<typeof import("./nodeFiles.ts")>("nodeFiles");
  if (files === undefined) {
    throw new SourceError(
      "SOURCE_MISSING",
      `MODEL: ${path} is a path, expected an https:// address; a page has no file system`,
    );
  }
  return files.openFolder(path);
}

/** Whether there is a folder at `path`. Never in a browser. */
export async function isLocalFolder(path: string): Promise<boolean> {
  const files = await importNode<typeof import("./nodeFiles.ts")>("nodeFiles");
  return files?.isFolder(path) === true;
}

/** A model of the hub as a folder, downloaded where it is not in the cache yet. Undefined where there is no file system to keep it. */
export async function openHubFolder(id: HubId, options: DownloadOptions): Promise<Folder | undefined> {
  const [hub, files] = await Promise.all([
    importNode<typeof import("./nodeHub.ts")>("nodeHub"),
    importNode<typeof import("./nodeFiles.ts")>("nodeFiles"),
  ]);
  if (hub === undefined || files === undefined) return undefined;
  const { path } = await hub.pullModel(id, options);
  return { ...files.openFolder(path), location: hubIdText(id) };
}
