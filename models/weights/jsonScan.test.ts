import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { JsonScanError, JsonScanner } from "./jsonScan.ts";

const scanner = (text: string) => new JsonScanner(new TextEncoder().encode(text));

function accepts(text: string): boolean {
  const scan = scanner(text);
  try {
    scan.value(1000);
    scan.end();
    return true;
  } catch (error) {
    if (error instanceof JsonScanError) return false;
    throw error;
  }
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// The scanner is stricter in one thing: strings must be Unicode.
const hasLoneSurrogate = (text: string) => /\\u[dD][89a-fA-F]/.test(text);

describe("for every", () => {
  test("text of JSON's characters, the scanner accepts what JSON.parse accepts", () => {
    const unit = fc.constantFrom(
      ...'{}[]":,0123-.eE+\\/utrfalsn \n\t'.split(""),
      "true",
      "null",
      "false",
      '"a"',
      "1e5",
      "\\u0041",
      "\u0001",
    );
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 12 }), (text) => {
        fc.pre(!hasLoneSurrogate(text));
        expect(accepts(text)).toBe(parses(text));
      }),
      { numRuns: 5000 },
    );
  });

  test("JSON value, the scanner accepts it, spaced or not", () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        (value) => accepts(JSON.stringify(value)) && accepts(JSON.stringify(value, null, "\t")),
      ),
    );
  });

  test("string, what JSON.stringify wrote is read, escaped to the last character or not", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
        expect(scanner(JSON.stringify(text)).string()).toBe(text);
        const escaped = text.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
        expect(scanner(`"${escaped.join("")}"`).string()).toBe(text);
      }),
    );
  });

  test("whole number up to 2^53 - 1, it is read exactly", () => {
    fc.assert(fc.property(fc.maxSafeNat(), (value) => scanner(` ${value},`).unsigned() === value));
  });
});

test.each([
  ['"\\ud83d\\ude00"', "😀"],
  ['"\\uD83D\\uDE00 \\u00e9\\u20ac\\/\\b\\f\\n\\r\\t\\"\\\\"', '😀 é€/\b\f\n\r\t"\\'],
  ['"\ufeffx"', "\ufeffx"],
])("%s is read as %j", (json, text) => expect(scanner(json).string()).toBe(text));

test.each(['"\\ud83d"', '"\\ude00"', '"\\ud83dx"', '"\\ud83d\\u0041"', '"\\ud83d\\ud83d"'])(
  "%s has no meaning in Unicode",
  (json) => {
    expect(() => scanner(json).string()).toThrow("lone surrogate");
  },
);

test.each([
  ["12.0", "number"],
  ["-0", "number"],
  ["1e2", "number"],
  ["1E-2", "number"],
  ["9007199254740992", "overflow"],
  ["1".repeat(1000), "overflow"],
  ["012", "syntax"],
  ["1.", "syntax"],
  ["-", "syntax"],
  ["", "syntax"],
])("%s is not read as a whole number: %s", (text, fault) => {
  try {
    scanner(text).unsigned();
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(JsonScanError);
    expect(error).toMatchObject({ fault });
  }
});

test("nesting is cut off where the caller says", () => {
  expect(() => scanner("[[[]]]").value(2)).not.toThrow();
  expect(() => scanner("[[[]]]").value(1)).toThrow("nested too deep");
  expect(() => scanner("[".repeat(1_000_000)).value(100)).toThrow("nested too deep");
});

test("faults say where they are and what was expected", () => {
  expect(() => scanner('{"a" 1}').value(3)).toThrow(
    expect.objectContaining({ position: 5, message: 'byte 0x31 (1), expected ":"' }),
  );
  expect(() => scanner('{"a":').value(3)).toThrow("the text ends, expected a value");
});
