import { describe, expect, test } from "vitest";
import { lookUp } from "./promptLookup.ts";

const of = (text: string, k: number) =>
  lookUp(
    [...text].map((it) => it.charCodeAt(0)),
    k,
  )
    .map((it) => String.fromCharCode(it))
    .join("");

describe("lookUp", () => {
  test("goes on as it went on before", () => {
    expect(of("the hedgehog and the he", 7)).toBe("dgehog ");
  });

  test("one equal token is no match, and neither is nothing", () => {
    expect(of("abcda", 3)).toBe("");
    expect(of("", 3)).toBe("");
    expect(of("a", 3)).toBe("");
    expect(of("aa", 3)).toBe("");
  });

  test("prefers the longest match, then the latest", () => {
    expect(of("xab1 ab2 ab3 xab", 1)).toBe("1");
    expect(of("ab1 ab2 cab", 1)).toBe("2");
  });

  test("what repeats goes on repeating", () => {
    expect(of("aaa", 5)).toBe("aaaaa");
    expect(of("xyzxyzx", 7)).toBe("yzxyzxy");
  });

  test("gives as many as are asked for", () => {
    expect(of("abcabc", 0)).toBe("");
    expect(of("abcabc", 2)).toBe("ab");
  });
});
