/** The parts of a request's answers on their way to a reader who may be slower, in the order they came. */
import type { Delivery } from "./requestCounts.ts";
import type { Part } from "./types.ts";

/** Parts of as many answers as there are choices: it ends with the last part of the last of them. */
export class PartQueue {
  readonly #parts: Part[] = [];
  /** Answers that go on. */
  #open: number;
  #error: { readonly reason: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(choices = 1) {
    this.#open = choices;
  }

  push(part: Part): void {
    this.#parts.push(part);
    if (part.finishReason !== null) this.#open--;
    this.#wake?.();
  }

  /** Ends it with an error, after the parts that came before. Nothing, where all answers have ended. */
  fail(reason: unknown): void {
    if (this.#open === 0) return;
    this.#error ??= { reason };
    this.#wake?.();
  }

  /** What is taken of them is added to `delivery`. */
  async *parts(delivery?: Delivery): AsyncGenerator<Part, void, undefined> {
    for (;;) {
      const part = this.#parts.shift();
      if (part !== undefined) {
        delivery?.add(part);
        yield part;
      } else if (this.#error !== undefined) throw this.#error.reason;
      else if (this.#open === 0) return;
      else await this.#change();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }
}
