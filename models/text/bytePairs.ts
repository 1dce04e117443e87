/**
 * Byte-pair encoding of one word, as Rust `tokenizers` does it.
 *
 * A word begins as its characters (those the vocabulary lacks become bytes, the unknown token, or nothing); then, again and
 * again, the neighbours whose pair stands first in the list of merges become one token, the leftmost first.
 * Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", §3.2; models/bpe of
 * huggingface/tokenizers. Written here and not taken from @huggingface/tokenizers, which merges before it drops the characters
 * that the vocabulary lacks (Rust: after), and needs seconds for a long word. O(n log n).
 */
import { UnsupportedModelError } from "../errors.ts";
import { fieldError, type JsonObject, listAt, stringAt } from "./json.ts";

/** Turns one pre-token into ids. */
export interface WordModel {
  /** The ids of a word. With `plain`, no id of a control token comes out, even if the word spells one. */
  ids(word: string, plain: boolean): readonly number[];
}

const POSITIONS = 2 ** 32; // a heap key is rank · 2³² + position: ordered by both, exact in float64
const CACHED_LENGTH = 256; // longer words hardly come again
const CACHED_WORDS = 10_000; // what Rust keeps

/** A BPE model from `model` of tokenizer.json. `control` are the ids that a plain word never gives. Throws ModelFormatError, UnsupportedModelError. */
export class BytePairs implements WordModel {
  readonly #vocab: ReadonlyMap<string, number>;
  readonly #merges = new Map<number, number>();
  readonly #merged: number[] = [];
  readonly #idLimit: number;
  readonly #unk: number | undefined;
  readonly #fuseUnk: boolean;
  readonly #byteFallback: boolean;
  readonly #ignoreMerges: boolean;
  readonly #prefix: string;
  readonly #suffix: string;
  readonly #control: ReadonlySet<number>;
  readonly #caches = { plain: new Map<string, readonly number[]>(), parsed: new Map<string, readonly number[]>() };

  constructor(model: JsonObject, vocab: ReadonlyMap<string, number>, control: ReadonlySet<number>) {
    const at = "tokenizer.json: model";
    if (typeof model.dropout === "number" && model.dropout > 0) {
      throw new UnsupportedModelError(`${at}.dropout: is ${model.dropout}, only encoding without dropout is supported`);
    }
    this.#vocab = vocab;
    this.#control = control;
    this.#idLimit = Array.from(vocab.values()).reduce((most, id) => Math.max(most, id), 0) + 1;
    this.#prefix = optionalString(model.continuing_subword_prefix, `${at}.continuing_subword_prefix`);
    this.#suffix = optionalString(model.end_of_word_suffix, `${at}.end_of_word_suffix`);
    this.#fuseUnk = model.fuse_unk === true;
    this.#byteFallback = model.byte_fallback === true;
    this.#ignoreMerges = model.ignore_merges === true;
    const unk = optionalString(model.unk_token, `${at}.unk_token`);
    this.#unk = unk === "" ? undefined : vocab.get(unk);
    for (const [rank, merge] of listAt(model.merges, `${at}.merges`).entries()) {
      this.#addMerge(rank, ...mergePair(merge, `${at}.merges[${rank}]`));
    }
  }

  ids(word: string, plain: boolean): readonly number[] {
    if (this.#ignoreMerges) {
      const whole = this.#vocab.get(word);
      if (whole !== undefined && !(plain && this.#control.has(whole))) return [whole];
    }
    const cache = plain ? this.#caches.plain : this.#caches.parsed;
    const known = cache.get(word);
    if (known !== undefined) return known;
    const ids = this.#merge(this.#symbols(word, plain), plain);
    if (word.length < CACHED_LENGTH) {
      if (cache.size >= CACHED_WORDS) cache.clear();
      cache.set(word, ids);
    }
    return ids;
  }

  #addMerge(rank: number, left: string, right: string): void {
    const a = this.#idOf(left, rank);
    const b = this.#idOf(right, rank);
    this.#merged.push(this.#idOf(left + right.slice(this.#prefix.length), rank));
    this.#merges.set(a * this.#idLimit + b, rank);
  }

  #idOf(token: string, rank: number): number {
    const id = this.#vocab.get(token);
    if (id === undefined) throw fieldError(`tokenizer.json: model.merges[${rank}]`, token, "tokens of model.vocab");
    return id;
  }

  #lookUp(token: string, plain: boolean): number | undefined {
    const id = this.#vocab.get(token);
    return id !== undefined && plain && this.#control.has(id) ? undefined : id;
  }

  /** The ids that a word begins as: a character each, bytes or the unknown token where the vocabulary lacks it. */
  #symbols(word: string, plain: boolean): number[] {
    const symbols: number[] = [];
    const characters = Array.from(word);
    let unknown = false; // Rust writes an unknown token down only when the next known one, or the end, comes
    for (const [i, character] of characters.entries()) {
      const text = (i > 0 ? this.#prefix : "") + character + (i === characters.length - 1 ? this.#suffix : "");
      const id = this.#lookUp(text, plain);
      if (id === undefined) {
        const bytes = this.#byteFallback ? this.#bytes(text) : undefined;
        if (bytes !== undefined) symbols.push(...bytes);
        else if (this.#unk !== undefined) {
          if (unknown && !this.#fuseUnk) symbols.push(this.#unk);
          unknown = true;
        }
        continue;
      }
      if (unknown && this.#unk !== undefined) symbols.push(this.#unk);
      unknown = false;
      symbols.push(id);
    }
    if (unknown && this.#unk !== undefined) symbols.push(this.#unk);
    return symbols;
  }

  #bytes(text: string): number[] | undefined {
    const ids: number[] = [];
    for (const byte of new TextEncoder().encode(text)) {
      const id = this.#vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
      if (id === undefined) return undefined;
      ids.push(id);
    }
    return ids;
  }

  /** The rank of a pair's merge, or undefined where there is none. */
  #rank(a: number, b: number, plain: boolean): number | undefined {
    const rank = this.#merges.get(a * this.#idLimit + b);
    return rank !== undefined && plain && this.#control.has(this.#merged[rank] ?? NaN) ? undefined : rank;
  }

  #merge(symbols: number[], plain: boolean): number[] {
    const count = symbols.length;
    const previous = Int32Array.from(symbols, (_, i) => i - 1);
    const next = Int32Array.from(symbols, (_, i) => (i + 1 < count ? i + 1 : -1));
    const at = (i: number) => symbols[i] ?? NaN;
    const heap: number[] = [];
    for (let i = 0; i + 1 < count; i++) {
      const rank = this.#rank(at(i), at(i + 1), plain);
      if (rank !== undefined) push(heap, rank * POSITIONS + i);
    }
    for (let key = pop(heap); key !== undefined; key = pop(heap)) {
      const position = key % POSITIONS;
      const right = next[position] ?? -1;
      if (at(position) < 0 || right < 0) continue; // already part of the token to its left, or nothing follows
      const merged = this.#merged[Math.floor(key / POSITIONS)] ?? NaN;
      const rank = this.#rank(at(position), at(right), plain);
      if (rank === undefined || this.#merged[rank] !== merged) continue; // a neighbour has changed since
      symbols[position] = merged;
      symbols[right] = -1;
      const after = next[right] ?? -1;
      next[position] = after;
      if (after >= 0) previous[after] = position;
      const before = previous[position] ?? -1;
      const left = before < 0 ? undefined : this.#rank(at(before), merged, plain);
      if (left !== undefined) push(heap, left * POSITIONS + before);
      const following = after < 0 ? undefined : this.#rank(merged, at(after), plain);
      if (following !== undefined) push(heap, following * POSITIONS + position);
    }
    return symbols.filter((id) => id >= 0);
  }
}

/** Adds a key to a binary heap whose smallest key is first. */
function push(heap: number[], key: number): void {
  let i = heap.length;
  heap.push(key);
  while (i > 0) {
    const parent = (i - 1) >> 1;
    const above = heap[parent] ?? NaN;
    if (above <= key) break;
    heap[i] = above;
    i = parent;
  }
  heap[i] = key;
}

/** Takes the smallest key out of the heap. */
function pop(heap: number[]): number | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return top;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] ?? NaN) < (heap[child] ?? NaN)) child++;
    const below = heap[child] ?? NaN;
    if (below >= last) break;
    heap[i] = below;
    i = child;
  }
  heap[i] = last;
  return top;
}

/** A merge as its two tokens: `["a", "b"]`, or `"a b"` in older files. */
function mergePair(merge: unknown, where: string): [string, string] {
  const parts = typeof merge === "string" ? merge.split(" ") : listAt(merge, where);
  if (parts.length !== 2) throw fieldError(where, merge, 'two tokens, as ["a", "b"] or "a b"');
  return [stringAt(parts[0], where), stringAt(parts[1], where)];
}

/** A string field that may be null or missing, "" then. */
function optionalString(value: unknown, where: string): string {
  return value === undefined || value === null ? "" : stringAt(value, where);
}
