/** Folders of a caller's own, held to what `ByteSource` promises: exactly the bytes that were asked for, in a plain array, or an error. */
import { SourceError } from "./errors.ts";
import type { ByteSource, Folder } from "./files.ts";

/** The folder, whose sources throw SOURCE_SHORT where a read brings another number of bytes: a tensor would be half another one. */
export function exactReads(folder: Folder): Folder {
  return {
    location: folder.location,
    open: async (name) => {
      const source = await folder.open(name);
      return source === undefined ? undefined : exact(source);
    },
  };
}

function exact(source: ByteSource): ByteSource {
  const { name, size } = source;
  return {
    name,
    size,
    read: async (begin, end, signal) => {
      const bytes = await source.read(begin, end, signal);
      // Node's Buffers come as plain arrays: their `slice` copies nothing, which whoever takes numbers out of bytes relies on.
      if (bytes.byteLength === end - begin) return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      throw new SourceError(
        "SOURCE_SHORT",
        `${name}: bytes ${begin} to ${end} were asked for, ${bytes.byteLength} came, expected ${end - begin}; its Folder must read all or throw`,
      );
    },
    close: () => source.close(),
  };
}
