/** Small texts in the user's cache folder. */
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KeptTexts } from "./files.ts";
import { cacheFolders } from "./nodeSwiftShader.ts";

/** Files in the first of the folders that can be written. */
export function nodeKeptTexts(folders = cacheFolders()): KeptTexts {
  return {
    async read(name) {
      for (const folder of folders) {
        try {
          return await readFile(join(folder, name), "utf8");
        } catch {
          // the next folder may have it
        }
      }
      return undefined;
    },
    async write(name, text) {
      for (const folder of folders) {
        const beside = join(folder, `${name}.${process.pid}`);
        try {
          await mkdir(folder, { recursive: true, mode: 0o700 });
          await writeFile(beside, text, { mode: 0o600 });
          return await rename(beside, join(folder, name)); // whole or not at all, whoever else writes
        } catch {
          await rm(beside, { force: true }).catch(() => undefined); // a read-only home: the next folder
        }
      }
    },
  };
}
