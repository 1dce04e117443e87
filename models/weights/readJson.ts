/** Reads the JSON files of a checkpoint: strict UTF-8, bounded in size, and errors that say where. */

import type { Folder } from "../../device/files.ts";
import { ModelFormatError } from "../errors.ts";
import { escapeBytes } from "./escape.ts";
import { JsonScanError, JsonScanner } from "./jsonScan.ts";

/** Largest JSON file that is read; the largest tokenizer.json seen has 35 MB. */
const LIMIT = 256_000_000;

/** Deepest nesting: a tokenizer.json has about 10. */
const DEPTH = 200;

/**
 * The value in the JSON file `name`, or undefined where the folder has no such file. What it holds is not checked.
 * Throws ModelFormatError: JSON_UTF8, JSON (with line and column), or LIMIT for a file above 256 MB.
 */
export async function readJson(folder: Folder, name: string, signal?: AbortSignal): Promise<unknown> {
  const file = await readWhole(folder, name, signal);
  return file === undefined ? undefined : parseJson(file);
}

/** The text of a small file, or undefined where the folder has no such file. Throws ModelFormatError: JSON_UTF8, LIMIT. */
export async function readText(folder: Folder, name: string, signal?: AbortSignal): Promise<string | undefined> {
  const file = await readWhole(folder, name, signal);
  return file === undefined ? undefined : decodeUtf8(file.name, file.bytes);
}

interface WholeFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

async function readWhole(folder: Folder, name: string, signal?: AbortSignal): Promise<WholeFile | undefined> {
  const source = await folder.open(name);
  if (source === undefined) return undefined;
  try {
    const { size } = source;
    if (size > LIMIT)
      throw new ModelFormatError("LIMIT", `${source.name}: has ${size} bytes, at most ${LIMIT} are read whole`);
    return { name: source.name, bytes: await source.read(0, size, signal) };
  } finally {
    await source.close();
  }
}

function parseJson({ name, bytes }: WholeFile): unknown {
  const text = decodeUtf8(name, bytes);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const message = `${whereBroken(bytes) ?? String(cause)}; download it again`;
    throw new ModelFormatError("JSON", `${name}: is not valid JSON ${message}`, { cause });
  }
}

/** `bytes` as text. Throws ModelFormatError JSON_UTF8 naming `file` where they are not UTF-8; a byte order mark is kept. */
function decodeUtf8(file: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    const message = `is not UTF-8 text, it begins with "${escapeBytes(bytes)}"; download it again`;
    throw new ModelFormatError("JSON_UTF8", `${file}: ${message}`, { cause });
  }
}

// JSON.parse does not always say where; the scanner, which refuses the same texts, does.
function whereBroken(bytes: Uint8Array): string | undefined {
  try {
    const scanner = new JsonScanner(bytes);
    scanner.value(DEPTH);
    scanner.end();
    return undefined;
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
    const before = bytes.subarray(0, error.position);
    const line = before.reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 1);
    return `at line ${line}, column ${error.position - before.lastIndexOf(0x0a)}: ${error.message}`;
  }
}
