/** The grammar of a safetensors header: JSON that nests three deep and no deeper; whatever else comes is refused where it begins. */
import { escapeName } from "./escape.ts";
import { JsonScanError, JsonScanner } from "./jsonScan.ts";
import { DTYPE_BITS, type Dtype, type SafetensorsHeader, type TensorInfo, tensorError } from "./tensorInfo.ts";

const ENTRY_LIMIT = 1_000_000; // of tensors, and of metadata: a mixture of 128 experts and 60 layers stored in parts has 70,000
const RANK_LIMIT = 1024; // bounds memory; the engine refuses above 8

// Long strings hash alike in V8 (by length alone from 16 KiB on), so a header full of them would make a Map quadratic.
const LONG_NAME = 8192;
const LONG_NAMES = 16;

const FIELDS = ["dtype", "shape", "data_offsets"] as const;
const KNOWN_DTYPES = Object.keys(DTYPE_BITS).join(", ");
const DTYPES: ReadonlyMap<string, Dtype> = new Map(Object.keys(DTYPE_BITS).map((name) => [name, name as Dtype]));

/** The header of a file whose data begins at `dataBegin`. Throws ModelFormatError: readHeader says with which codes. */
export function parseHeader(file: string, bytes: Uint8Array, dataBegin: number): SafetensorsHeader {
  return new HeaderParser(file, bytes, dataBegin).parse();
}

type Entry = { -readonly [K in keyof TensorInfo]?: TensorInfo[K] };

class HeaderParser {
  readonly #file: string;
  readonly #scan: JsonScanner;
  readonly #dataBegin: number;
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #metadata = new Map<string, string>();
  #hasMetadata = false;
  #longNames = 0;
  #tensor: string | undefined; // the one being read, for messages

  constructor(file: string, bytes: Uint8Array, dataBegin: number) {
    this.#file = file;
    this.#scan = new JsonScanner(bytes);
    this.#dataBegin = dataBegin;
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
    throw tensorError(this.#file, code, this.#tensor, message, cause);
  }
}
