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
import { escapeBytes, escapeName } from "./escape.ts";
import { JsonScanError, JsonScanner } from "./jsonScan.ts";

/** Bits of one element, for every dtype of the format. */
export const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** An element type of the format, in its own spelling. */
export type Dtype = keyof typeof DTYPE_BITS;

/** One tensor of a file. */
export interface TensorInfo {
  /** As stored: unsafe to print without `escapeName`. */
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Byte offsets [begin, end) in the file, not in its data section. They need not be aligned to the element. */
  readonly begin: number;
  readonly end: number;
}

/** The header of a file, checked against the file's size. Names are Map keys, never properties. */
export interface SafetensorsHeader {
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

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
const ENTRY_LIMIT = 1_000_000; // of tensors, and of metadata: a mixture of 128 experts and 60 layers stored in parts has 70,000
const RANK_LIMIT = 1024; // bounds memory; the engine refuses above 8
const FIRST_READ = 64 * 1024; // holds the header of most models, so that HTTP needs one request
const HEADER_PIECE = 8 * 1024 * 1024;
const CHUNK = 8 * 1024 * 1024;

// Long strings hash alike in V8 (by length alone from 16 KiB on), so a header full of them would make a Map quadratic.
const LONG_NAME = 8192;
const LONG_NAMES = 16;

const FIELDS = ["dtype", "shape", "data_offsets"] as const;
const KNOWN_DTYPES = Object.keys(DTYPE_BITS).join(", ");
const DTYPES: ReadonlyMap<string, Dtype> = new Map(Object.keys(DTYPE_BITS).map((name) => [name, name as Dtype]));

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
  const header = new HeaderParser(source.name, bytes).parse();
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

/** Elements of a shape: 1 for rank 0, 0 where any dimension is 0, Infinity past 2^53 - 1. */
export function elementCount(shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  let count = 1;
  for (const size of shape) {
    count *= size; // rounds only past 2^53, which is found right here
    if (count > Number.MAX_SAFE_INTEGER) return Number.POSITIVE_INFINITY;
  }
  return count;
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

type Entry = { -readonly [K in keyof TensorInfo]?: TensorInfo[K] };

// The grammar of the header, which nests three deep and no deeper: whatever else comes is refused where it begins.
class HeaderParser {
  readonly #file: string;
  readonly #scan: JsonScanner;
  readonly #dataBegin: number;
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #metadata = new Map<string, string>();
  #hasMetadata = false;
  #longNames = 0;
  #tensor: string | undefined; // the one being read, for messages

  constructor(file: string, bytes: Uint8Array) {
    this.#file = file;
    this.#scan = new JsonScanner(bytes);
    this.#dataBegin = LENGTH_BYTES + bytes.length;
  }

  parse(): SafetensorsHeader {
    try {
      this.#scan.object((key) => this.#member(key));
      this.#scan.end();
    } catch (error) {
      if (!(error instanceof JsonScanError)) throw error;
      const code = { syntax: "HEADER_JSON", number: "NUMBER", overflow: "OVERFLOW" }[error.fault];
      return this.#fail(code, `header is not valid at its byte ${error.position}: ${error.message}`, error);
    }
    return { tensors: this.#tensors, metadata: this.#metadata };
  }

  #member(key: string): void {
    if (key === "__metadata__") {
      if (this.#hasMetadata) this.#fail("DUPLICATE_KEY", "__metadata__ is there twice, expected once");
      this.#hasMetadata = true;
      this.#readMetadata();
      return;
    }
    this.#countLong(key);
    this.#tensor = key;
    if (this.#tensors.has(key)) this.#fail("DUPLICATE_KEY", "is in the header twice, expected once");
    if (this.#tensors.size === ENTRY_LIMIT)
      this.#fail("LIMIT", `is one tensor more than ${ENTRY_LIMIT}, the most that are read`);
    this.#tensors.set(key, this.#readTensor(key));
    this.#tensor = undefined;
  }

  #readMetadata(): void {
    this.#expectKind("METADATA", "__metadata__", "object");
    this.#scan.object((key) => {
      this.#countLong(key);
      const label = () => `__metadata__ key "${escapeName(key)}"`;
      if (this.#metadata.has(key)) this.#fail("DUPLICATE_KEY", `${label()} is there twice, expected once`);
      if (this.#metadata.size === ENTRY_LIMIT)
        this.#fail("LIMIT", `${label()} is one more than ${ENTRY_LIMIT}, the most that are read`);
      if (this.#scan.kind() !== "string") this.#expectKind("METADATA", label(), "string");
      this.#metadata.set(key, this.#scan.string());
    });
  }

  #readTensor(name: string): TensorInfo {
    const entry: Entry = {};
    this.#expectKind("FIELDS", "entry", "object");
    this.#scan.object((field) => this.#field(entry, field));
    const { dtype, shape, begin, end } = entry;
    if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
      const missing = [dtype, shape, begin].map((value, i) => (value === undefined ? FIELDS[i] : undefined));
      return this.#fail(
        "FIELDS",
        `has no ${missing.filter((field) => field !== undefined).join(" and no ")}, expected ${FIELDS.join(", ")}`,
      );
    }
    return { name, dtype, shape, begin, end };
  }

  #field(entry: Entry, field: string): void {
    if (field === "dtype") {
      this.#once(field, entry.dtype);
      entry.dtype = this.#dtype();
    } else if (field === "shape") {
      this.#once(field, entry.shape);
      entry.shape = this.#numbers(field, RANK_LIMIT);
    } else if (field === "data_offsets") {
      this.#once(field, entry.begin);
      [entry.begin, entry.end] = this.#offsets();
    } else {
      this.#fail("FIELDS", `has a field "${escapeName(field)}", expected only ${FIELDS.join(", ")}`);
    }
  }

  #offsets(): [begin: number, end: number] {
    const [begin, end] = this.#numbers("data_offsets", 2);
    if (begin === undefined || end === undefined) {
      return this.#fail("FIELDS", "data_offsets has fewer than 2 numbers, expected [begin, end]");
    }
    if (end < begin) this.#fail("OFFSETS", `data_offsets is [${begin}, ${end}], expected begin ≤ end`);
    if (!Number.isSafeInteger(this.#dataBegin + end))
      this.#fail("OVERFLOW", `data_offsets end at ${end}, past 2^53 - 1`);
    return [this.#dataBegin + begin, this.#dataBegin + end];
  }

  #dtype(): Dtype {
    this.#expectKind("FIELDS", "dtype", "string");
    const text = this.#scan.string();
    return (
      DTYPES.get(text) ?? this.#fail("UNKNOWN_DTYPE", `dtype is "${escapeName(text)}", expected one of ${KNOWN_DTYPES}`)
    );
  }

  #numbers(field: string, most: number): number[] {
    this.#expectKind("FIELDS", field, "array");
    const numbers: number[] = [];
    this.#scan.array(() => {
      this.#expectKind("FIELDS", `an item of ${field}`, "number");
      if (numbers.length === most) {
        this.#fail(
          field === "shape" ? "LIMIT" : "FIELDS",
          `${field} has more than ${most} numbers, expected at most that`,
        );
      }
      numbers.push(this.#scan.unsigned());
    });
    return numbers;
  }

  #once(field: string, before: unknown): void {
    if (before !== undefined) this.#fail("DUPLICATE_KEY", `has ${field} twice, expected once`);
  }

  #expectKind(code: string, label: string, expected: "object" | "array" | "string" | "number"): void {
    const kind = this.#scan.kind();
    // What begins no value is left to the scanner, which says where.
    if (kind !== expected && kind !== "nothing")
      this.#fail(code, `${label} is ${kind === "word" ? "a bare word" : `of type ${kind}`}, expected ${expected}`);
  }

  #countLong(name: string): void {
    if (name.length > LONG_NAME && ++this.#longNames > LONG_NAMES) {
      this.#fail(
        "LIMIT",
        `more than ${LONG_NAMES} names are longer than ${LONG_NAME} characters, expected names of tensors`,
      );
    }
  }

  #fail(code: string, message: string, cause?: unknown): never {
    throw formatError(this.#file, code, this.#tensor, message, cause);
  }
}

// Sorted by offset, tensors must follow each other from the data's first byte to the file's last, each as long as its shape says.
function checkLayout(source: ByteSource, tensors: ReadonlyMap<string, TensorInfo>, dataBegin: number): void {
  let end = dataBegin;
  for (const info of inFileOrder(tensors)) {
    if (info.begin !== end) {
      const offsets = `data_offsets begin at ${info.begin - dataBegin}, expected ${end - dataBegin} where the one before ends`;
      throw formatError(
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
    throw formatError(file, "OVERFLOW", info.name, `${what} has more than 2^53 - 1 bits`);
  if (bits % 8 !== 0)
    throw formatError(file, "MISALIGNED", info.name, `${what} has ${bits} bits, expected a multiple of 8`);
  const stored = info.end - info.begin;
  if (stored !== bits / 8)
    throw formatError(
      file,
      "SIZE_MISMATCH",
      info.name,
      `data_offsets span ${stored} bytes, expected ${bits / 8} for ${what}`,
    );
}

function formatError(
  file: string,
  code: string,
  tensor: string | undefined,
  message: string,
  cause?: unknown,
): ModelFormatError {
  const where = tensor === undefined ? file : `${file}: tensor "${escapeName(tensor)}"`;
  const options = { ...(cause === undefined ? {} : { cause }), ...(tensor === undefined ? {} : { tensor }) };
  return new ModelFormatError(code, `${where}: ${message}`, options);
}
