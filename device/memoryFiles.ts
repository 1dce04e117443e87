/** Files that are held in memory: of models that are made and not read. */
import type { ByteSource, Folder } from "./files.ts";
import { checkRange } from "./sourceChecks.ts";

/** Reads from `bytes`, which must not change meanwhile. */
export function memorySource(bytes: Uint8Array, name: string): ByteSource {
  return {
    name,
    size: bytes.length,
    read: async (begin, end, signal) => {
      signal?.throwIfAborted();
      checkRange(name, bytes.length, begin, end);
      return bytes.slice(begin, end);
    },
    close: async () => {},
  };
}

/** Files by name. */
export function memoryFolder(files: Readonly<Record<string, string | Uint8Array>>, location = "memory"): Folder {
  return {
    location,
    open: async (name) => {
      const file = Object.hasOwn(files, name) ? files[name] : undefined;
      if (file === undefined) return undefined;
      return memorySource(typeof file === "string" ? new TextEncoder().encode(file) : file, name);
    },
  };
}
