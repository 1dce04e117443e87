/** A model by the name that users give: a folder, an id of the hub, an https:// folder, `default`, or `default-draft`. */

import { exactReads } from "../device/exactReads.ts";
import type { Folder } from "../device/files.ts";
import { isLocalFolder, openHubFolder, openLocalFolder } from "../device/folders.ts";
import { type HubId, parseHubId } from "../device/hubId.ts";
import type { DownloadOptions } from "../device/nodeHub.ts";
import { httpFolder } from "../models/httpSource.ts";

/** The models that ship in the package, beside this file's folder: one that answers, and a small one that proposes tokens to it. */
const SHIPPED = ["default", "default-draft"];

/** What a page reads from, which has no cache of its own to download into. */
const HUB = "https://huggingface.co";

/**
 * A folder of files that is somewhere else than on disk may be passed as it is. `owner/name` or `owner/name@revision` is a folder where
 * there is one of that name, else a model on the hub: downloaded into the shared cache, or in a browser read by ranges. Throws
 * SourceError where there is none.
 */
export async function openModel(model: string | Folder, options: DownloadOptions = {}): Promise<Folder> {
  if (typeof model !== "string") return exactReads(model);
  if (SHIPPED.includes(model)) return await openUrl(new URL(`../models/${model}/`, import.meta.url));
  if (/^(https?|file):\/\//i.test(model)) return await openUrl(new URL(model));
  const id = parseHubId(model);
  if (id === undefined || (await isLocalFolder(model))) return await openLocalFolder(model);
  return (await openHubFolder(id, options)) ?? hubRanges(id);
}

function hubRanges({ name, revision }: HubId): Folder {
  return httpFolder(`${HUB}/${name}/resolve/${encodeURIComponent(revision)}/`, { fetch: globalThis.fetch });
}

async function openUrl(url: URL): Promise<Folder> {
  if (url.protocol === "file:") return await openLocalFolder(url);
  return httpFolder(url, { fetch: globalThis.fetch });
}
