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

/** Letters to insert, delete or replace to get from one word to the other. Source: Wagner and Fischer 1974. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...from].entries()) {
    const next = [i + 1];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? Number.NaN) + (letter === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? Number.NaN) + 1, (next[j - 1] ?? Number.NaN) + 1));
    }
    row = next;
  }
  return row[to.length] ?? Number.NaN;
}
