/** A safetensors file of logits that is written row by row: its header first, so that nothing is kept in memory. */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { SourceError } from "../device/errors.ts";

const FLOAT_BYTES = 4;

/** `logits.N` F32 (tokens of prompt N, vocabulary), for every prompt. */
export class LogitsFile {
  readonly #path: string;
  readonly #file: number;
  readonly #rowBytes: number;
  /** Where each prompt's first row lies. */
  readonly #begins: readonly number[];

  /** Makes the file, or empties it. Throws SourceError where it cannot be written. */
  static create(path: string, prompts: readonly { readonly length: number }[], vocabulary: number): LogitsFile {
    const rowBytes = vocabulary * FLOAT_BYTES;
    let end = 0;
    const begins: number[] = [];
    const entries = prompts.map(({ length }, i) => {
      const begin = end;
      begins.push(begin);
      end += length * rowBytes;
      return [`logits.${i}`, { dtype: "F32", shape: [length, vocabulary], data_offsets: [begin, end] }];
    });
    const json = JSON.stringify(Object.fromEntries(entries));
    const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8)); // the data begins aligned
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const data = length.length + header.length;
    const places = begins.map((begin) => data + begin);
    const logits = writing(path, () => new LogitsFile(path, openSync(path, "w"), rowBytes, places));
    writing(path, () => writeSync(logits.#file, Buffer.concat([length, header]), 0, data, 0));
    return logits;
  }

  private constructor(path: string, file: number, rowBytes: number, begins: readonly number[]) {
    [this.#path, this.#file, this.#rowBytes, this.#begins] = [path, file, rowBytes, begins];
  }

  /** The logits of one place: f32 (vocabulary). In any order. */
  write(prompt: number, position: number, logits: Float32Array): void {
    const begin = this.#begins[prompt];
    if (begin === undefined) throw new RangeError(`logits: prompt ${prompt}, expected one of ${this.#begins.length}`);
    const bytes = new Uint8Array(logits.buffer, logits.byteOffset, this.#rowBytes);
    // A write may take fewer bytes than it is given.
    for (let at = 0; at < bytes.length; ) {
      const place = begin + position * this.#rowBytes + at;
      at += writing(this.#path, () => writeSync(this.#file, bytes, at, bytes.length - at, place));
    }
  }

  close(): void {
    closeSync(this.#file);
  }

  /** Closes and deletes it: half a file would be taken for a whole one. */
  discard(): void {
    closeSync(this.#file);
    rmSync(this.#path, { force: true });
  }
}

function writing<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const why = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    throw new SourceError("SOURCE_IO", `--full ${path}: cannot be written (${why}); choose another file`, { cause });
  }
}
