/** Stop strings against every way to cut a text. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { StopMatcher } from "./stopStrings.ts";

/** All that a matcher releases for a text that comes in pieces. */
function run(
  stops: readonly string[],
  pieces: readonly string[],
): { pieces: string[]; text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  const released = pieces.map((piece) => matcher.push(piece));
  const stopped = released.some((each) => each.stopped);
  const texts = released.map((each) => each.text);
  return { pieces: texts, text: texts.join("") + matcher.end(), stopped };
}

describe("StopMatcher", () => {
  test.each([
    { stops: ["\n"], pieces: ["a?\n"], text: "a?", stopped: true },
    { stops: ["\n", "Alice:"], pieces: ["Hi", " Alice", "!"], text: "Hi Alice!", stopped: false },
    { stops: ["\n", "Alice:"], pieces: ["Hi", " Al", "ice", ":", "x"], text: "Hi ", stopped: true },
    { stops: ["O P Q"], pieces: ["N ", "O", " P", " ", "Q", "R"], text: "N ", stopped: true },
    { stops: ["aab", "ab"], pieces: ["x", "a", "a", "b"], text: "x", stopped: true },
    { stops: ["ab", "aab"], pieces: ["xaab"], text: "x", stopped: true },
    { stops: ["abcd", "bc"], pieces: ["abcd"], text: "a", stopped: true },
    { stops: ["abcd", "bc"], pieces: ["a", "b", "c", "d"], text: "a", stopped: true },
    { stops: ["aaab"], pieces: ["aa", "aa", "aab", "c"], text: "aaa", stopped: true },
    { stops: ["STOP"], pieces: ["x ST"], text: "x ST", stopped: false },
    { stops: ["🍣"], pieces: ["a🍣b"], text: "a", stopped: true },
    { stops: ["é🍣"], pieces: ["cafe", "é", "🍤"], text: "cafeé🍤", stopped: false },
    { stops: [], pieces: ["a", "b"], text: "ab", stopped: false },
    { stops: ["a"], pieces: [], text: "", stopped: false },
    { stops: ["a"], pieces: ["", "a", "b"], text: "", stopped: true },
  ])("$stops in $pieces gives $text", ({ stops, pieces, text, stopped }) => {
    const got = run(stops, pieces);
    expect({ text: got.text, stopped: got.stopped }).toEqual({ text, stopped });
  });

  test("releases at once what can't be part of a stop string", () => {
    expect(run(["aab"], ["xa", "a", "a", "c", "a"]).pieces).toEqual(["x", "", "a", "aac", ""]);
  });

  test("releases nothing after the stop, and nothing is held", () => {
    const matcher = new StopMatcher(["b"]);
    expect(matcher.push("abc")).toEqual({ text: "a", stopped: true });
    expect(matcher.push("d")).toEqual({ text: "", stopped: true });
    expect(matcher.end()).toBe("");
  });

  test("refuses an empty stop string", () => {
    expect(() => new StopMatcher(["a", ""])).toThrow(
      "stop: holds an empty string, expected at least one character each",
    );
  });

  test("gives the same for every way to cut a text", () => {
    const letters = fc.constantFrom("a", "b", "c");
    const stops = fc.array(fc.string({ unit: letters, minLength: 1, maxLength: 4 }), { maxLength: 3 });
    fc.assert(
      fc.property(stops, fc.array(fc.string({ unit: letters, maxLength: 5 })), (list, pieces) => {
        const whole = pieces.join("");
        const byCharacter = run(list, Array.from(whole));
        expect(run(list, pieces)).toMatchObject({ text: byCharacter.text, stopped: byCharacter.stopped });
        expect(byCharacter.stopped).toBe(list.some((stop) => whole.includes(stop)));
        expect(list.some((stop) => byCharacter.text.includes(stop))).toBe(false);
        expect(whole.startsWith(byCharacter.text)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
