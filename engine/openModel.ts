/** A model by the name that users give: a folder, an https:// folder, or `default`. */

import type { Folder } from "../device/files.ts";
import { openLocalFolder } from "../device/folders.ts";
import { httpFolder } from "../models/sources.ts";

/** The model that ships in the package, beside this file's folder. */
const DEFAULT_MODEL = new URL("../models/default/", import.meta.url);

/** A folder of files that is somewhere else than on disk may be passed as it is. Throws SourceError where there is none. */
export async function openModel(model: string | Folder): Promise<Folder> {
  if (typeof model !== "string") return model;
  if (model === "default") return await openUrl(DEFAULT_MODEL);
  if (/^(https?|file):\/\//i.test(model)) return await openUrl(new URL(model));
  return await openLocalFolder(model);
}

async function openUrl(url: URL): Promise<Folder> {
  if (url.protocol === "file:") return await openLocalFolder(url);
  return httpFolder(url, { fetch: globalThis.fetch });
}
