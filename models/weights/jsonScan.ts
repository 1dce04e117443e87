/** A strict JSON scanner over UTF-8 bytes: it hands out one token at a time, so a hostile document costs no more than its length. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;

/** Strings up to this many bytes are built without a decoder, which costs more to call than to run on them. */
const SHORT = 128;

// The one-letter escapes: the letter's byte, then the byte it stands for.
const ESCAPES: ReadonlyMap<number, number> = new Map([
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x2f, 0x2f],
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
]);

/** What was wrong: the grammar of JSON, the spelling of a number, or its size. */
export type JsonFault = "syntax" | "number" | "overflow";

/** Thrown by the scanner. `position` is a byte offset into what was scanned. */
export class JsonScanError extends Error {
  readonly fault: JsonFault;
  readonly position: number;
  constructor(fault: JsonFault, message: string, position: number) {
    super(message);
    this.name = "JsonScanError";
    this.fault = fault;
    this.position = position;
  }
}

/** A position in a JSON document that only moves forward. `bytes` must be valid UTF-8; every method throws JsonScanError. */
export class JsonScanner {
  readonly #bytes: Uint8Array;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Skips white space; the next byte, or undefined at the end. */
  peek(): number | undefined {
    const bytes = this.#bytes;
    while (this.#at < bytes.length) {
      const byte = bytes[this.#at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.#at++;
    }
    return undefined;
  }

  /** The type of the value that comes next; "word" is true, false or null, "nothing" is what begins no value. */
  kind(): "object" | "array" | "string" | "number" | "word" | "nothing" {
    const byte = this.peek();
    if (byte === undefined) return "nothing";
    if (byte === 0x7b) return "object";
    if (byte === 0x5b) return "array";
    if (byte === QUOTE) return "string";
    if (byte === MINUS || isDigit(byte)) return "number";
    return byte === 0x74 || byte === 0x66 || byte === 0x6e ? "word" : "nothing";
  }

  /** Reads an object. `member` is called after each `"key":` and must read the value. */
  object(member: (key: string) => void): void {
    this.#expect(0x7b);
    if (this.#take(0x7d)) return;
    do {
      if (this.peek() !== QUOTE) this.#unexpected("a key in quotes");
      const key = this.string();
      this.#expect(COLON);
      member(key);
    } while (this.#take(COMMA));
    this.#expect(0x7d);
  }

  /** Reads an array. `item` is called at the start of each value and must read it. */
  array(item: () => void): void {
    this.#expect(0x5b);
    if (this.#take(0x5d)) return;
    do item();
    while (this.#take(COMMA));
    this.#expect(0x5d);
  }

  /** Reads a string: escapes resolved, lone surrogates and raw control characters refused. */
  string(): string {
    this.#expect(QUOTE);
    const bytes = this.#bytes;
    const begin = this.#at;
    let ascii = true;
    for (let at = begin; at < bytes.length; at++) {
      const byte = bytes[at] ?? 0;
      if (byte === QUOTE) {
        this.#at = at + 1;
        return this.#decode(bytes.subarray(begin, at), ascii);
      }
      if (byte === BACKSLASH) return this.#escapedString(begin, at);
      if (byte < 0x20) this.#fail("syntax", `control character 0x${hex(byte, 2)} inside a string`, at);
      if (byte >= 0x80) ascii = false;
    }
    return this.#fail("syntax", "the text ends inside a string", bytes.length);
  }

  /** Reads a whole number ≥ 0 that is written with digits only. Refuses 16.0, 1e3 and -0 ("number") and above 2^53 - 1 ("overflow"). */
  unsigned(): number {
    if (this.kind() !== "number") this.#unexpected("a number");
    const start = this.#at;
    const value = this.#digits(start);
    const next = this.#bytes[this.#at];
    if (value === undefined || next === DOT || next === 0x65 || next === 0x45) {
      this.#at = start;
      this.#number();
      return this.#fail("number", `${this.#text(start)} is not written as a whole number of digits only`, start);
    }
    if (value > Number.MAX_SAFE_INTEGER) return this.#fail("overflow", `${this.#text(start)} is above 2^53 - 1`, start);
    return value;
  }

  /** Reads and forgets any value, nested at most `depth` deep. */
  value(depth: number): void {
    if (depth < 0) this.#fail("syntax", "nested too deep", this.#at);
    const kind = this.kind();
    if (kind === "object") this.object(() => this.value(depth - 1));
    else if (kind === "array") this.array(() => this.value(depth - 1));
    else if (kind === "string") this.string();
    else if (kind === "number") this.#number();
    else if (!["true", "false", "null"].some((word) => this.#word(word))) this.#unexpected("a value");
  }

  /** Checks that nothing but white space is left. */
  end(): void {
    if (this.peek() !== undefined) this.#unexpected("the end of the text");
  }

  // Digits from `start`, without sign: undefined where the token begins with "-". Exact up to 2^53, and above it once it passed it.
  #digits(start: number): number | undefined {
    const bytes = this.#bytes;
    let at = start;
    if (bytes[at] === MINUS) return undefined;
    let value = 0;
    for (; at < bytes.length; at++) {
      const byte = bytes[at] ?? 0;
      if (!isDigit(byte)) break;
      value = value * 10 + (byte - ZERO);
    }
    if (bytes[start] === ZERO && at > start + 1) this.#fail("syntax", "a number with a leading zero", start);
    this.#at = at;
    return value;
  }

  // Any number of the JSON grammar.
  #number(): void {
    if (this.#bytes[this.#at] === MINUS) this.#at++;
    this.#someDigits(this.#bytes[this.#at] === ZERO ? 1 : Number.POSITIVE_INFINITY);
    if (this.#bytes[this.#at] === DOT) {
      this.#at++;
      this.#someDigits();
    }
    const exponent = this.#bytes[this.#at];
    if (exponent === 0x65 || exponent === 0x45) {
      this.#at++;
      const sign = this.#bytes[this.#at];
      if (sign === MINUS || sign === 0x2b) this.#at++;
      this.#someDigits();
    }
  }

  #someDigits(most: number = Number.POSITIVE_INFINITY): void {
    const begin = this.#at;
    while (this.#at - begin < most && isDigit(this.#bytes[this.#at] ?? 0)) this.#at++;
    if (this.#at === begin) this.#unexpected("a digit");
  }

  #word(word: string): boolean {
    for (let i = 0; i < word.length; i++) if (this.#bytes[this.#at + i] !== word.charCodeAt(i)) return false;
    this.#at += word.length;
    return true;
  }

  // A string with escapes, written out as UTF-8 first: an escape is never shorter than the bytes it stands for.
  #escapedString(begin: number, firstEscape: number): string {
    const bytes = this.#bytes;
    const end = this.#closingQuote(firstEscape);
    const out = new Uint8Array(end - begin);
    out.set(bytes.subarray(begin, firstEscape));
    let length = firstEscape - begin;
    this.#at = firstEscape;
    while (this.#at < end) {
      const byte = bytes[this.#at] ?? 0;
      if (byte < 0x20) this.#fail("syntax", `control character 0x${hex(byte, 2)} inside a string`, this.#at);
      if (byte === BACKSLASH) {
        length = this.#escape(out, length);
      } else {
        out[length++] = byte;
        this.#at++;
      }
    }
    this.#at = end + 1;
    return this.#decoder.decode(out.subarray(0, length));
  }

  #closingQuote(from: number): number {
    const bytes = this.#bytes;
    for (let at = from; at < bytes.length; at++) {
      if (bytes[at] === BACKSLASH) at++;
      else if (bytes[at] === QUOTE) return at;
    }
    return this.#fail("syntax", "the text ends inside a string", bytes.length);
  }

  // One escape at the position; its UTF-8 goes to out[length…]. Returns the new length.
  #escape(out: Uint8Array, length: number): number {
    const at = this.#at;
    const letter = this.#bytes[at + 1] ?? 0;
    if (letter !== 0x75) {
      const byte = ESCAPES.get(letter);
      if (byte === undefined) return this.#fail("syntax", "unknown escape in a string", at);
      this.#at = at + 2;
      out[length] = byte;
      return length + 1;
    }
    let point = this.#hex4(at + 2);
    this.#at = at + 6;
    if (point >= 0xdc00 && point < 0xe000) this.#fail("syntax", "lone surrogate in a string", at);
    if (point >= 0xd800 && point < 0xdc00) {
      const paired = this.#bytes[at + 6] === BACKSLASH && this.#bytes[at + 7] === 0x75;
      const low = paired ? this.#hex4(at + 8) : 0;
      if (low < 0xdc00 || low >= 0xe000) this.#fail("syntax", "lone surrogate in a string", at);
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
      this.#at = at + 12;
    }
    return writeUtf8(out, length, point);
  }

  #hex4(at: number): number {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const byte = this.#bytes[at + i] ?? 0;
      const lower = byte | 0x20;
      if (isDigit(byte)) value = value * 16 + byte - ZERO;
      else if (lower >= 0x61 && lower <= 0x66) value = value * 16 + lower - 0x57;
      else return this.#fail("syntax", "\\u without four hexadecimal digits", at);
    }
    return value;
  }

  #decode(bytes: Uint8Array, ascii: boolean): string {
    return ascii && bytes.length <= SHORT
      ? Reflect.apply(String.fromCharCode, undefined, bytes)
      : this.#decoder.decode(bytes);
  }

  #take(byte: number): boolean {
    if (this.peek() !== byte) return false;
    this.#at++;
    return true;
  }

  #expect(byte: number): void {
    if (!this.#take(byte)) this.#unexpected(`"${String.fromCharCode(byte)}"`);
  }

  #text(begin: number): string {
    const text = String.fromCharCode(...this.#bytes.subarray(begin, Math.min(this.#at, begin + 24)));
    return this.#at > begin + 24 ? `${text}…` : text;
  }

  #unexpected(expected: string): never {
    const byte = this.#bytes[this.#at];
    const found = byte === undefined ? "the text ends" : `byte 0x${hex(byte, 2)}${printable(byte)}`;
    return this.#fail("syntax", `${found}, expected ${expected}`, this.#at);
  }

  #fail(fault: JsonFault, message: string, position: number): never {
    throw new JsonScanError(fault, message, position);
  }
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

function hex(byte: number, digits: number): string {
  return byte.toString(16).padStart(digits, "0");
}

function printable(byte: number): string {
  return byte > 0x20 && byte < 0x7f ? ` (${String.fromCharCode(byte)})` : "";
}

function writeUtf8(out: Uint8Array, length: number, point: number): number {
  if (point < 0x80) {
    out[length++] = point;
  } else if (point < 0x800) {
    out[length++] = 0xc0 | (point >> 6);
    out[length++] = 0x80 | (point & 63);
  } else if (point < 0x10000) {
    out[length++] = 0xe0 | (point >> 12);
    out[length++] = 0x80 | ((point >> 6) & 63);
    out[length++] = 0x80 | (point & 63);
  } else {
    out[length++] = 0xf0 | (point >> 18);
    out[length++] = 0x80 | ((point >> 12) & 63);
    out[length++] = 0x80 | ((point >> 6) & 63);
    out[length++] = 0x80 | (point & 63);
  }
  return length;
}
