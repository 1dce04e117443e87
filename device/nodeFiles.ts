/** Folders and files of Node's file system, read by position. */

import { statSync } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SourceError } from "./errors.ts";
import type { ByteSource, Folder } from "./files.ts";
import { checkName, checkRange } from "./sourceChecks.ts";

/** Bytes of one system call: small enough that an abort is noticed soon. */
const PIECE = 16 * 1024 * 1024;

/** The folder at `path`, which must exist: SOURCE_MISSING otherwise. Names opened in it cannot leave it, though links may point elsewhere. */
export function openFolder(location: string | URL): Folder {
  const path = typeof location === "string" ? location : fileURLToPath(location);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    throw new SourceError(
      "SOURCE_MISSING",
      `MODEL: no such folder ${path}; give a folder with config.json and model.safetensors, or owner/name of a model on the hub`,
    );
  }
  if (!found.isDirectory()) {
    throw new SourceError(
      "SOURCE_MISSING",
      `MODEL: ${path} is a file, expected a folder with config.json and model.safetensors${/\.gguf$/i.test(path) ? "; GGUF is not read, take the model's safetensors" : ""}`,
    );
  }
  return {
    location: path,
    open: async (name) => {
      checkName(path, name);
      return await openAs(join(path, name), name);
    },
  };
}

/** Whether there is a folder at `path`. */
export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Opens one file for reading. Throws SOURCE_MISSING where there is none; the caller closes it. */
export async function openFile(path: string): Promise<ByteSource> {
  const source = await openAs(path, path);
  if (source === undefined) throw new SourceError("SOURCE_MISSING", `${path}: no such file`);
  return source;
}

async function openAs(path: string, name: string): Promise<ByteSource | undefined> {
  try {
    // Asked before opening, since opening a pipe would wait for a writer.
    if (!(await stat(path)).isFile())
      throw new SourceError("SOURCE_IO", `${name}: is not a regular file; give a file's name`);
    const handle = await open(path, "r");
    try {
      return new NodeFile(handle, name, (await handle.stat()).size);
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (error) {
    const code = systemCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (code === undefined) throw error;
    throw new SourceError("SOURCE_IO", `${name}: cannot be opened (${code}); check its permissions`, { cause: error });
  }
}

class NodeFile implements ByteSource {
  readonly name: string;
  readonly size: number;
  #handle: FileHandle | undefined;

  constructor(handle: FileHandle, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.size = size;
  }

  async read(begin: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkRange(this.name, this.size, begin, end);
    const bytes = new Uint8Array(end - begin);
    for (let filled = 0; filled < bytes.length; ) {
      signal?.throwIfAborted();
      filled += await this.#readSome(bytes, filled, begin + filled);
    }
    return bytes;
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  // A read may return fewer bytes than asked, and none only at the end: then the file has shrunk since it was opened.
  async #readSome(into: Uint8Array, filled: number, position: number): Promise<number> {
    if (this.#handle === undefined) throw new SourceError("SOURCE_CLOSED", `${this.name}: read after it was closed`);
    const length = Math.min(into.length - filled, PIECE);
    const { bytesRead } = await this.#handle.read(into, filled, length, position).catch((error: unknown) => {
      throw new SourceError(
        "SOURCE_IO",
        `${this.name}: reading failed at byte ${position} (${systemCode(error) ?? "unknown"})`,
        { cause: error },
      );
    });
    if (bytesRead > 0) return bytesRead;
    throw new SourceError(
      "SOURCE_CHANGED",
      `${this.name}: ends at byte ${position}, had ${this.size} bytes when it was opened; it was changed while it was read`,
    );
  }
}

function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || error instanceof SourceError) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
