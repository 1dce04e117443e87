/** The end of all that a request asked of the engine. */

/**
 * Signals of a request's pieces of work, aborted together. Each piece has one of its own: Node takes more than ten listeners on a
 * signal for a leak, and says so.
 */
export class Leave {
  readonly #pieces = new Set<AbortController>();
  #left: { readonly reason: unknown } | undefined;

  /** A piece of work begins; `end` is to be called once it is over. */
  begin(): { readonly signal: AbortSignal; end(): void } {
    const piece = new AbortController();
    if (this.#left === undefined) this.#pieces.add(piece);
    else piece.abort(this.#left.reason);
    return { signal: piece.signal, end: () => this.#pieces.delete(piece) };
  }

  /** Ends what has begun, and whatever begins from now on. */
  abort(reason?: unknown): void {
    this.#left ??= { reason };
    for (const piece of this.#pieces) piece.abort(reason);
    this.#pieces.clear();
  }
}
