/**
 * One file from the hub into the cache. The hub's own client downloads too, but it starts over where it broke off, checks no hash,
 * tells no progress, hears no signal, and two of it write into one file: that much is here, and no more.
 */
import { rename, rm } from "node:fs/promises";
import { SourceError } from "./errors.ts";
import { type Answer, contentRange, get, isEncoded, isPage } from "./httpRequest.ts";
import { fileUrl, type Hub, type HubFile, withToken } from "./nodeHubApi.ts";
import { type Asked, askedText, hasCode, refusal, writing } from "./nodeHubErrors.ts";
import { Partial } from "./nodeHubPartial.ts";

/** A file of a commit, and where its bytes are kept. */
export interface Wanted {
  readonly name: string;
  readonly commit: string;
  readonly file: HubFile;
  /** Path of the finished file. */
  readonly blob: string;
}

/** Where a file grows; the hub's Python client knows it by the same name. */
export const partialPath = (blob: string): string => `${blob}.incomplete`;

/**
 * Downloads a file whole and checked, going on from what an earlier run left. What has come stays when it breaks off.
 * Throws the errors of `resolveRevision`, SOURCE_RANGE and SOURCE_HASH for other bytes than listed, SOURCE_DISK_FULL,
 * SOURCE_READ_ONLY, and the signal's reason.
 */
export async function download(hub: Hub, wanted: Wanted, onLength: (bytes: number) => void): Promise<void> {
  const { file, blob } = wanted;
  const path = partialPath(blob);
  const partial = await Partial.open(path, file, hub.http.signal);
  const transfer = new Transfer(hub, wanted, partial, onLength);
  try {
    for (let attempt = 1; ; attempt++) {
      await transfer.run();
      if (await partial.isRight()) break;
      // An old part may be another program's, or one that a power cut left: the second time nothing of it is used.
      await partial.restart();
      if (attempt === 2) throw wrongHash(wanted);
    }
  } finally {
    await partial.close();
    if (partial.length === 0 && file.size > 0) await rm(path, { force: true });
  }
  await writing(blob, () => rename(path, blob));
}

class Transfer {
  readonly #hub: Hub;
  readonly #asked: Asked;
  readonly #url: URL;
  readonly #size: number;
  readonly #partial: Partial;
  readonly #onLength: (bytes: number) => void;

  constructor(hub: Hub, { name, commit, file }: Wanted, partial: Partial, onLength: (bytes: number) => void) {
    this.#hub = hub;
    this.#asked = { name, revision: commit, file: file.path };
    this.#url = fileUrl(hub, name, commit, file.path);
    this.#size = file.size;
    this.#partial = partial;
    this.#onLength = onLength;
  }

  /** Until every byte has come. Retries end where five in a row brought nothing. */
  async run(): Promise<void> {
    this.#onLength(this.#partial.length);
    while (this.#partial.length < this.#size) {
      const before = this.#partial.length;
      try {
        await this.#request();
      } catch (error) {
        if (!hasCode(error, "SOURCE_NETWORK") || this.#partial.length <= before) throw error;
      }
    }
  }

  async #request(): Promise<void> {
    const partial = this.#partial;
    const size = this.#size;
    const request = {
      url: this.#url,
      name: askedText(this.#asked),
      // Asked again at every attempt, for what is still missing then.
      get range() {
        return partial.length === 0 ? undefined : { begin: partial.length, end: size };
      },
    };
    const options = withToken(this.#hub, this.#url, { "accept-encoding": "identity" });
    await get(options, request, (answer) => this.#take(answer));
  }

  async #take(answer: Answer): Promise<void> {
    const { response } = answer;
    if (response.status === 206 || response.status === 416) await this.#checkRange(answer);
    else if (response.status !== 200) throw await refusal(answer, this.#asked, this.#hub.settings);
    else if (this.#partial.length > 0) await this.#partial.restart(); // a server without ranges
    for await (const chunk of answer.chunks()) await this.#append(chunk);
    if (this.#partial.length < this.#size)
      throw new Error(`connection dropped after ${this.#partial.length} of ${this.#size} bytes`);
  }

  async #append(chunk: Uint8Array): Promise<void> {
    const where = askedText(this.#asked);
    if (this.#partial.length === 0 && isPage(chunk)) {
      const message = `${this.#url.origin} answers with a web page, expected the file`;
      throw new SourceError(
        "SOURCE_HTML",
        `${where}: ${message}; does the network want a login, and is HF_ENDPOINT right?`,
      );
    }
    if (this.#partial.length + chunk.length > this.#size) {
      await this.#partial.restart();
      const message = `more than the ${this.#size} bytes came that the hub lists`;
      throw new SourceError(
        "SOURCE_RANGE",
        `${where}: ${message}; a server or cache on the way is broken, try again later`,
      );
    }
    await this.#partial.append(chunk);
    this.#onLength(this.#partial.length);
  }

  /** Drops what has come where the answer does not go on from it, so that the next attempt asks for the whole file. */
  async #checkRange(answer: Answer): Promise<void> {
    const { response } = answer;
    const begin = this.#partial.length;
    const range = isEncoded(response) ? undefined : contentRange(response);
    if (response.status === 206 && range?.begin === begin && range.size === this.#size) return;
    await answer.discard();
    const got = range === undefined ? "no range" : `bytes ${range.begin} to ${range.end} of ${range.size}`;
    const message = `answered with ${got}, bytes ${begin} to ${this.#size} were asked for`;
    if (begin > 0) {
      await this.#partial.restart();
      throw new Error(message);
    }
    throw new SourceError(
      "SOURCE_RANGE",
      `${askedText(this.#asked)}: ${message}; a server or cache on the way is broken`,
    );
  }
}

function wrongHash({ name, file }: Wanted): SourceError {
  const message = `has another hash than the hub lists (${file.hash.kind} ${file.hash.hex}), twice`;
  return new SourceError(
    "SOURCE_HASH",
    `${name}/${file.path}: ${message}; a server or cache on the way changes it, try another network`,
  );
}
