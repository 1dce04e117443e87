/**
 * Reads safetensors files from strangers: a strict header, and tensors by range.
 *
 * Layout: u64 little-endian header length N · N bytes of UTF-8 JSON · data without holes. The JSON maps each tensor's name to its
 * dtype, shape and data_offsets [begin, end) counted from the data's first byte; `__metadata__` maps strings to strings.
 * Source: huggingface/safetensors, README "Format" and `safetensors/src/tensor.rs`. Stricter here: duplicate keys and fields that
 * the format does not know are refused, as are more tensors, dimensions or huge names than any model has.
 */
import type { ByteSource } from "../../device/files.ts";
import { ModelFormatError } from "../errors.ts";
import { escapeBytes } from "./escape.ts";
import { parseHeader } from "./headerParser.ts";
import { JsonScanner } from "./jsonScan.ts";
import { DTYPE_BITS, elementCount, type SafetensorsHeader, type TensorInfo, tensorError } from "./tensorInfo.ts";

/** Bytes of one tensor: `offset` counts from the tensor's first byte. */
export interface TensorChunk {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** How a tensor is streamed. */
export interface StreamOptions {
  /** Bytes of each piece but the last, 8 MiB by default. */
  readonly chunkBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const LENGTH_BYTES = 8;
const HEADER_LIMIT = 100_000_000; // the format's own, decimal
const FIRST_READ = 64 * 1024; // holds the header of most models, so that HTTP needs one request
const HEADER_PIECE = 8 * 1024 * 1024;
const CHUNK = 8 * 1024 * 1024;

/**
 * Reads and checks the header of `source`: afterwards the tensors tile the rest of the file exactly, and every length agrees with
 * dtype and shape. Nothing is allocated by a length before it is known to fit the file.
 * Throws ModelFormatError with the codes HEADER_TRUNCATED, HEADER_LENGTH, HEADER_UTF8, HEADER_JSON, DUPLICATE_KEY, METADATA,
 * FIELDS, NUMBER, OVERFLOW, UNKNOWN_DTYPE, OFFSETS, SIZE_MISMATCH, MISALIGNED, INCOMPLETE, TRAILING and LIMIT.
 */
export async function readHeader(source: ByteSource, signal?: AbortSignal): Promise<SafetensorsHeader> {
  const first = await source.read(0, Math.min(source.size, FIRST_READ), signal);
  const bytes = await readHeaderBytes(source, headerLength(source, first), first, signal);
  checkUtf8(source.name, bytes);
  const header = parseHeader(source.name, bytes, LENGTH_BYTES + bytes.length);
  checkLayout(source, header.tensors, LENGTH_BYTES + bytes.length);
  return header;
}

/** The bytes of a tensor in order, in pieces of `chunkBytes` (the last may be shorter; none for an empty tensor). */
export async function* streamTensor(
  source: ByteSource,
  info: Pick<TensorInfo, "begin" | "end">,
  { chunkBytes = CHUNK, signal }: StreamOptions = {},
): AsyncGenerator<TensorChunk, void, undefined> {
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1) {
    throw new RangeError(`streamTensor: chunkBytes is ${chunkBytes}, expected a whole number above 0`);
  }
  for (let begin = info.begin; begin < info.end; begin += chunkBytes) {
    const bytes = await source.read(begin, Math.min(begin + chunkBytes, info.end), signal);
    yield { offset: begin - info.begin, bytes };
  }
}

// The header's length N, compared with the file before anything is allocated by it.
function headerLength(source: ByteSource, first: Uint8Array): number {
  if (first.length < LENGTH_BYTES) {
    const message = `has ${source.size} bytes, a safetensors file begins with 8 bytes of header length; download it again`;
    throw new ModelFormatError("HEADER_TRUNCATED", `${source.name}: ${message}`);
  }
  const length = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  const room = source.size - LENGTH_BYTES;
  if (length >= 2n && length <= BigInt(Math.min(HEADER_LIMIT, room))) return Number(length);
  const expected = length > HEADER_LIMIT ? `at most ${HEADER_LIMIT}` : `2 to the ${room} bytes that follow`;
  // Eight printable bytes are not a length but the beginning of a page or of JSON.
  const text = first.subarray(0, LENGTH_BYTES).every((byte) => byte >= 0x20 && byte < 0x7f);
  const hint = text ? `it begins with "${escapeBytes(first)}": is it a safetensors file?` : "is the file whole?";
  throw new ModelFormatError(
    "HEADER_LENGTH",
    `${source.name}: header length is ${length}, expected ${expected}; ${hint}`,
  );
}

async function readHeaderBytes(
  source: ByteSource,
  length: number,
  first: Uint8Array,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const head = first.subarray(LENGTH_BYTES, LENGTH_BYTES + length);
  if (head.length === length) return head;
  checkOpening(source.name, head);
  const bytes = new Uint8Array(length);
  bytes.set(head);
  for (let at = head.length; at < length; at += HEADER_PIECE) {
    const end = Math.min(at + HEADER_PIECE, length);
    bytes.set(await source.read(LENGTH_BYTES + at, LENGTH_BYTES + end, signal), at);
  }
  return bytes;
}

// A long header that does not open an object is not worth reading to its end.
function checkOpening(name: string, head: Uint8Array): void {
  const byte = new JsonScanner(head).peek();
  if (byte === undefined || byte === 0x7b || byte >= 0x80) return;
  const message = `header begins with "${escapeBytes(head)}", expected "{"; is it a safetensors file?`;
  throw new ModelFormatError("HEADER_JSON", `${name}: ${message}`);
}

// In pieces, since the decoded text is not needed.
function checkUtf8(name: string, bytes: Uint8Array): void {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const piece = 64 * 1024;
  for (let at = 0; at < bytes.length; at += piece) {
    try {
      decoder.decode(bytes.subarray(at, at + piece), { stream: at + piece < bytes.length });
    } catch (cause) {
      const message = `header is not UTF-8 near its byte ${at}, expected JSON in UTF-8; was the file changed?`;
      throw new ModelFormatError("HEADER_UTF8", `${name}: ${message}`, { cause });
    }
  }
}

// Sorted by offset, tensors must follow each other from the data's first byte to the file's last, each as long as its shape says.
function checkLayout(source: ByteSource, tensors: ReadonlyMap<string, TensorInfo>, dataBegin: number): void {
  let end = dataBegin;
  for (const info of inFileOrder(tensors)) {
    if (info.begin !== end) {
      const offsets = `data_offsets begin at ${info.begin - dataBegin}, expected ${end - dataBegin} where the one before ends`;
      throw tensorError(
        source.name,
        "OFFSETS",
        info.name,
        `${offsets}: tensors must follow each other without hole or overlap`,
      );
    }
    checkSize(source.name, info);
    end = info.end;
  }
  const rest = source.size - end;
  if (rest === 0) return;
  const code = rest < 0 ? "INCOMPLETE" : "TRAILING";
  const what = rest < 0 ? "it was cut short" : "something follows the last tensor";
  throw new ModelFormatError(
    code,
    `${source.name}: has ${source.size} bytes, expected ${end} from its header; ${what}: download it again`,
  );
}

function inFileOrder(tensors: ReadonlyMap<string, TensorInfo>): TensorInfo[] {
  return [...tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
}

function checkSize(file: string, info: TensorInfo): void {
  const bits = elementCount(info.shape) * DTYPE_BITS[info.dtype];
  const what = `${info.dtype} of shape (${info.shape.slice(0, 16).join(", ")}${info.shape.length > 16 ? ", …" : ""})`;
  if (bits > Number.MAX_SAFE_INTEGER)
    throw tensorError(file, "OVERFLOW", info.name, `${what} has more than 2^53 - 1 bits`);
  if (bits % 8 !== 0)
    throw tensorError(file, "MISALIGNED", info.name, `${what} has ${bits} bits, expected a multiple of 8`);
  const stored = info.end - info.begin;
  if (stored !== bits / 8)
    throw tensorError(
      file,
      "SIZE_MISMATCH",
      info.name,
      `data_offsets span ${stored} bytes, expected ${bits / 8} for ${what}`,
    );
}
