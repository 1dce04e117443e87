/** Files of a checkpoint that tests hold in memory. */
import type { ByteSource, Folder } from "../device/files.ts";
import { checkRange } from "../device/sourceChecks.ts";

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
export function memoryFolder(files: Readonly<Record<string, string | Uint8Array>>): Folder {
  return {
    location: "memory",
    open: async (name) => {
      const file = Object.hasOwn(files, name) ? files[name] : undefined;
      if (file === undefined) return undefined;
      return memorySource(typeof file === "string" ? new TextEncoder().encode(file) : file, name);
    },
  };
}
