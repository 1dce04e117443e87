/** What was made so far and by whom it is freed: last made, first freed. */

/** Collects what one owner has to free. */
export class Owned {
  readonly #frees: (() => void | Promise<void>)[] = [];

  /** Takes something over and returns it. */
  add<T>(it: T, free: (it: T) => void | Promise<void>): T {
    this.#frees.push(() => free(it));
    return it;
  }

  /** Frees everything, once. */
  async free(): Promise<void> {
    for (const free of this.#frees.splice(0).reverse()) await free();
  }
}
