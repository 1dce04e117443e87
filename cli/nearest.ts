/** The word that was probably meant. */

/** The nearest of `words`, or undefined where none is near: at most a third of its letters wrong. */
export function nearest(typed: string, words: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const word of words) {
    const wrong = distance(typed, word);
    if (wrong < least && wrong <= Math.max(1, Math.ceil(word.length / 3))) [best, least] = [word, wrong];
  }
  return best;
}

/**
 * Letters to insert, delete, replace or swap with their neighbour to get from one word to the other.
 * Source: optimal string alignment, after Damerau 1964.
 */
function distance(from: string, to: string): number {
  let before: readonly number[] = [];
  let row: readonly number[] = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 0; i < from.length; i++) {
    const next = [i + 1];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? Number.NaN) + (from[i] === to[j - 1] ? 0 : 1);
      const swaps = i > 0 && j > 1 && from[i] === to[j - 2] && from[i - 1] === to[j - 1];
      const swapped = swaps ? (before[j - 2] ?? Number.NaN) + 1 : replaced;
      next.push(Math.min(replaced, swapped, (row[j] ?? Number.NaN) + 1, (next[j - 1] ?? Number.NaN) + 1));
    }
    [before, row] = [row, next];
  }
  return row[to.length] ?? Number.NaN;
}
