/** A file that is being downloaded: what has come is on disk and hashed, so that a broken download goes on where it stopped. */
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { HubFile } from "./nodeHubApi.ts";
import { writing } from "./nodeHubErrors.ts";

const PIECE = 4 * 2 ** 20; // bytes of one read of what is there

const QUIET = 10_000; // ms after which a writer has given up: the hub's Python client waits as long for a byte
const LOOK = 500; // ms between looks
const LEFT = 60; // s that a file which is left is made to look older, so that the next run need not wait for it

/** Waits while another program writes the file at `path`, which would append to what is written here. `onWait` is called once before. */
export async function untouched(path: string, signal: AbortSignal | undefined, onWait: () => void): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || Math.abs(Date.now() - found.mtimeMs) > QUIET) return;
  onWait();
  let { size } = found;
  for (let quiet = 0; quiet < QUIET; quiet += LOOK) {
    await sleep(LOOK, undefined, { signal });
    const now = await stat(path).catch(() => undefined);
    if (now === undefined) return;
    if (now.size !== size) quiet = 0;
    size = now.size;
  }
}

/** Bytes are written at their own positions: a second writer of the same file, however it came about, writes the same. */
export class Partial {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #file: HubFile;
  #hash: Hash;
  #length = 0;

  /** Opens or makes the file and reads what is in it. Whoever opened it closes it. */
  static async open(path: string, file: HubFile, signal: AbortSignal | undefined): Promise<Partial> {
    return await writing(path, async () => {
      const partial = new Partial(path, await open(path, constants.O_RDWR | constants.O_CREAT), file);
      try {
        await partial.#readBack(signal);
        return partial;
      } catch (error) {
        await partial.close();
        throw error;
      }
    });
  }

  private constructor(path: string, handle: FileHandle, file: HubFile) {
    this.#path = path;
    this.#handle = handle;
    this.#file = file;
    this.#hash = begun(file);
  }

  /** Bytes that have come. */
  get length(): number {
    return this.#length;
  }

  async append(bytes: Uint8Array): Promise<void> {
    await writing(this.#path, async () => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#length + done);
        done += bytesWritten;
      }
    });
    this.#hash.update(bytes);
    this.#length += bytes.length;
  }

  /** Drops what has come. */
  async restart(): Promise<void> {
    await writing(this.#path, () => this.#handle.truncate(0));
    this.#length = 0;
    this.#hash = begun(this.#file);
  }

  /** Whether all bytes have come and are those that the hub has. On disk for good, then. */
  async isRight(): Promise<boolean> {
    if (this.#length !== this.#file.size || this.#hash.copy().digest("hex") !== this.#file.hash.hex) return false;
    await writing(this.#path, () => this.#handle.sync()); // a name must not outlive a power cut that its bytes do not
    return true;
  }

  async close(): Promise<void> {
    const now = Date.now() / 1000;
    // A whole one too: it may not get its name. Where the time cannot be set, the next run waits.
    await this.#handle.utimes(now, now - LEFT).catch(() => undefined);
    await writing(this.#path, () => this.#handle.close());
  }

  async #readBack(signal: AbortSignal | undefined): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.#file.size) return await this.restart();
    const piece = new Uint8Array(Math.min(PIECE, size));
    while (this.#length < size) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.#handle.read(piece, 0, piece.length, this.#length);
      if (bytesRead === 0) return;
      this.#hash.update(piece.subarray(0, bytesRead));
      this.#length += bytesRead;
    }
  }
}

function begun({ hash, size }: HubFile): Hash {
  return hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}
