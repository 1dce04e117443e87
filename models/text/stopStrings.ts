/** Stop strings in a stream of text: found across the borders of tokens, with no more held back than may still become one. */

/** What may be shown after one more piece of text. */
export interface Released {
  readonly text: string;
  /** A stop string has come: `text` ends before it, and nothing more is released. */
  readonly stopped: boolean;
}

/**
 * Looks for the first stop string in text that comes in pieces.
 *
 * First is the one that is complete first, and of several that end together the one that begins first: so that the result is the
 * same however the text is cut, and generation can end at once. Of `ab` and `aab`, "xaab" gives "x".
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = "";
  #stopped = false;

  /** Throws RangeError for an empty stop string, which every text holds. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new RangeError("stop: holds an empty string, expected at least one character each");
    this.#stops = Array.from(new Set(stops));
    this.#longest = this.#stops.reduce((most, stop) => Math.max(most, stop.length), 0);
  }

  /** Takes the next piece and gives back what can no longer be part of a stop string. */
  push(text: string): Released {
    if (this.#stopped) return { text: "", stopped: true };
    const seen = this.#held + text;
    const start = this.#firstMatch(seen);
    if (start !== undefined) {
      this.#stopped = true;
      this.#held = "";
      return { text: seen.slice(0, start), stopped: true };
    }
    const keep = this.#openLength(seen);
    this.#held = seen.slice(seen.length - keep);
    return { text: seen.slice(0, seen.length - keep), stopped: false };
  }

  /** What was held back as the beginning of a stop string that did not come. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Where the first stop string of `seen` begins. */
  #firstMatch(seen: string): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.#stops) {
      const start = seen.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      if (first === undefined || end < first.end || (end === first.end && start < first.start)) first = { start, end };
    }
    return first?.start;
  }

  /** The length of the longest end of `seen` that begins a stop string. */
  #openLength(seen: string): number {
    for (let length = Math.min(this.#longest - 1, seen.length); length > 0; length--) {
      const tail = seen.slice(seen.length - length);
      if (this.#stops.some((stop) => stop.startsWith(tail))) return length;
    }
    return 0;
  }
}
