/** Where checkpoints come from, as the rest of ingle sees it: named byte ranges, wherever they are kept. */

/** Bytes that can be read by range: a file on disk, one in memory, a resource over HTTP. */
export interface ByteSource {
  /** As the user knows it: a file name or URL. Used in messages. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** Exactly the bytes [begin, end), in a new array. Throws if the source ends before, or `signal` aborts. */
  read(begin: number, end: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Gives back what the source holds (a file handle). It cannot be read afterwards. */
  close(): Promise<void>;
}

/** A hub-style folder: `config.json`, `model.safetensors`, `tokenizer.json` and so on under one place. */
export interface Folder {
  /** As the user gave it: a path or URL. */
  readonly location: string;
  /** Opens a file of the folder, or returns undefined where there is none. The caller closes it. */
  open(name: string): Promise<ByteSource | undefined>;
}

/** Small texts that outlive the program, by name. What cannot be kept is lost without a word: a text may be gone at any time. */
export interface KeptTexts {
  read(name: string): Promise<string | undefined>;
  write(name: string, text: string): Promise<void>;
}
