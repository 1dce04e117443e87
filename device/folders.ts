/** Folders of the local file system, where there is one. */
import { SourceError } from "./errors.ts";
import type { Folder } from "./files.ts";
import { importNode } from "./importNode.ts";

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
