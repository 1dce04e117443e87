/**
 * The page pool: fixed pages of a cache group, shared by content.
 *
 * A page is free, held by one or more sequences, or cached: held by none, full, and kept under the hash of its tokens and
 * of all before them until its place is wanted. Used + cached + free = total, always.
 */
import { sha256 } from "@noble/hashes/sha2.js";

/** Hex of a SHA-256 over all tokens from the start of the sequence to the end of a page. */
export type PageKey = string;

/** The key of the page that holds `rows` after the page `before`; `rows` are all that its keys and values came from. */
export function pageKey(before: PageKey, rows: Uint32Array): PageKey {
  const head = new TextEncoder().encode(before);
  const bytes = new Uint8Array(head.length + rows.byteLength);
  bytes.set(head);
  bytes.set(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength), head.length);
  return Array.from(sha256(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The pages of a cache group and who holds them. */
export class PagePool {
  readonly total: number;
  readonly #free: number[];
  /** Holders by page; pages with none are free or cached. */
  readonly #holders: Int32Array;
  readonly #keys = new Map<number, PageKey>();
  readonly #byKey = new Map<PageKey, number>();
  /** Pages that nobody holds, least recently used first. */
  readonly #cached = new Set<number>();

  constructor(total: number) {
    this.total = total;
    this.#free = Array.from({ length: total }, (_, i) => total - 1 - i);
    this.#holders = new Int32Array(total);
  }

  get cached(): number {
    return this.#cached.size;
  }
  get used(): number {
    return this.total - this.#free.length - this.#cached.size;
  }
  /** Pages that hold nothing. */
  get free(): number {
    return this.#free.length;
  }
  /** Pages that `take` could give. */
  get available(): number {
    return this.#free.length + this.#cached.size;
  }

  /** A page for one holder to write, or undefined where all are held. Evicts the cached page that was unused longest. */
  take(): number | undefined {
    const page = this.#free.pop() ?? this.#evict();
    if (page !== undefined) this.#holders[page] = 1;
    return page;
  }

  #evict(): number | undefined {
    const [page] = this.#cached;
    if (page === undefined) return undefined;
    this.#cached.delete(page);
    const key = this.#keys.get(page);
    if (key !== undefined) this.#byKey.delete(key);
    this.#keys.delete(page);
    return page;
  }

  /** Whether there is a page with this key. */
  has(key: PageKey): boolean {
    return this.#byKey.has(key);
  }

  /** One more holder of the page with this key, or undefined where there is none. It must not be written. */
  share(key: PageKey): number | undefined {
    const page = this.#byKey.get(key);
    if (page === undefined) return undefined;
    this.#cached.delete(page);
    this.#holders[page] = this.#count(page) + 1;
    return page;
  }

  /** One more holder of a page that somebody holds, of whatever content. It must not be written. Throws RangeError for any other. */
  hold(page: number): void {
    const holders = this.#count(page);
    if (holders <= 0) throw new RangeError(`page ${page}: held once more, but held by none`);
    this.#holders[page] = holders + 1;
  }

  /** Names a full page, so that others may share it. A second page of one content stays its holder's own. */
  publish(page: number, key: PageKey): void {
    if (this.#byKey.has(key) || this.#keys.has(page)) return;
    this.#keys.set(page, key);
    this.#byKey.set(key, page);
  }

  /** One holder less. Throws RangeError for a page that nobody holds. */
  release(page: number): void {
    const holders = this.#count(page);
    if (holders <= 0) throw new RangeError(`page ${page}: released, but held by none`);
    this.#holders[page] = holders - 1;
    if (holders > 1) return;
    if (this.#keys.has(page)) this.#cached.add(page);
    else this.#free.push(page);
  }

  #count(page: number): number {
    const holders = this.#holders[page];
    if (holders === undefined) throw new RangeError(`page ${page}: of ${this.total}`);
    return holders;
  }
}
