/** Rules of the samples of a step, block by block, each with its sequence's tokens behind: one u32 buffer, grown as needed. */
import { powerOfTwo } from "../kernels/fragments/batch.ts";
import type { LogitRules } from "./samplingParams.ts";

const FIRST_WORDS = 1024;

/** Laid out anew each step. */
export class SampleLists {
  #words = new Uint32Array(FIRST_WORDS);
  #length = 0;

  /** Empties it. */
  begin(): void {
    this.#length = 0;
  }

  /** Adds the rules of samples behind `tokens` and behind each of `drafts`; returns where their block begins, in words. */
  add({ block, history }: LogitRules, tokens: readonly number[], drafts: readonly number[] = []): number {
    const at = this.#length;
    const end = at + block.length;
    this.#grow(history ? end + tokens.length + drafts.length : end);
    this.#words.set(block, at);
    if (!history) return at;
    this.#words.set(tokens, end);
    this.#words.set(drafts, end + tokens.length);
    return at;
  }

  #grow(length: number): void {
    this.#length = length;
    if (length <= this.#words.length) return;
    const words = new Uint32Array(powerOfTwo(length));
    words.set(this.#words);
    this.#words = words;
  }

  /** What was added since `begin`. */
  get words(): Uint32Array<ArrayBuffer> {
    return this.#words.subarray(0, this.#length);
  }
}
