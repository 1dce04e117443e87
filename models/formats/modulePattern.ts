/** Patterns of module paths, as configs have them: refused where matching one may take for ever, since JavaScript's backtrack. */

/** Repetitions of one pattern: a path that does not match is tried at each of its places for each of them. */
const MOST_REPETITIONS = 6; // a path of 42 letters then takes 0.2 s at worst (V8)

// An escape, a class, a group's beginning with its kind, its end, a bar, or a quantifier.
const PARTS = /\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!]|<[=!]|P?<\w+>))?|\)|[|*+?{]/gs;

/**
 * Whether every path is matched or not in a time that grows slowly with its length.
 *
 * Not so where a repeated group matches one text in several ways, since it has a quantifier or alternatives inside, as (a+)+ and (a|a)+ have.
 */
export function matchesQuickly(pattern: string): boolean {
  const outer: boolean[] = [];
  let varies = false; // whether the group that we are in has a quantifier or alternatives
  let behind = -1; // where a group that varies ended
  let repetitions = 0;
  for (const { 0: part, index } of pattern.matchAll(PARTS)) {
    if (part.startsWith("(")) {
      outer.push(varies);
      varies = false;
    } else if (part === ")") {
      if (varies) behind = index + 1;
      varies = outer.pop() === true || varies;
    } else if (part === "|" || part === "?") {
      varies = true;
    } else if (part === "*" || part === "+" || part === "{") {
      if (index === behind || ++repetitions > MOST_REPETITIONS) return false;
      varies = true;
    }
  }
  return true;
}
