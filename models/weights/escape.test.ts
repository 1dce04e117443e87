import fc from "fast-check";
import { expect, test } from "vitest";
import { escapeBytes, escapeName, listNames } from "./escape.ts";

test.each([
  ["model.layers.0.q_proj.weight", "model.layers.0.q_proj.weight"],
  ["Gewicht größer 重み 😀", "Gewicht größer 重み 😀"],
  ["\u001b[31mred\u0007", "\\u{1b}[31mred\\u{7}"],
  ["\u009b31m", "\\u{9b}31m"],
  ["a\nb\rc\td\0e", "a\\u{a}b\\u{d}c\\u{9}d\\u{0}e"],
  ["safe\u202Egnp.exe", "safe\\u{202e}gnp.exe"],
  ["a\u2066b\u2069\u200f\u061c", "a\\u{2066}b\\u{2069}\\u{200f}\\u{61c}"],
  ["zero\u200bwidth\ufeff\u2060", "zero\\u{200b}width\\u{feff}\\u{2060}"],
  ["line\u2028para\u2029nbsp\u00a0", "line\\u{2028}para\\u{2029}nbsp\\u{a0}"],
  ["tag\u{e0041}", "tag\\u{e0041}"],
  ["half\ud800", "half\\u{d800}"],
  ["\\u{1b}", "\\\\u{1b}"],
])("%j is printed as %s", (name, printed) => expect(escapeName(name)).toBe(printed));

test("long names are cut at a whole character, with their length", () => {
  expect(escapeName("😀".repeat(300), 3)).toBe("😀😀😀… (600 characters)");
  expect(escapeName("n".repeat(160))).toBe("n".repeat(160));
  expect(escapeName("n".repeat(10_000_000))).toBe(`${"n".repeat(160)}… (10000000 characters)`);
});

test("for every two names up to the limit, they print alike only if they are equal", () => {
  const name = fc.string({ unit: fc.constantFrom("\\", "u", "{", "}", "1", "b", "\u001b", "\u00b1"), maxLength: 12 });
  fc.assert(fc.property(name, name, (a, b) => (escapeName(a) === escapeName(b)) === (a === b)));
});

test("for every text, nothing printed can move a cursor or reorder", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => !/[\p{C}\p{Zl}\p{Zp}]/u.test(escapeName(text))));
});

test("bytes print as text where they are text", () => {
  expect(escapeBytes(new TextEncoder().encode("<!DOCTYPE html>"))).toBe("<!DOCTYPE html>");
  expect(escapeBytes(Uint8Array.from([0x1b, 0xff, 0x41]))).toBe("\\u{1b}\uFFFDA");
  expect(escapeBytes(new Uint8Array(100).fill(0x41), 3)).toBe("AAA…");
});

test("lists name the first and count the rest", () => {
  expect(listNames(["a", "b\u0007"])).toBe("a, b\\u{7}");
  expect(listNames(["a", "b", "c"], 2)).toBe("a, b and 1 more");
});
