/** What reaches a terminal: nothing in it moves the cursor or reorders text. */
import { describe, expect, test } from "vitest";
import { ModelFormatError } from "../models/errors.ts";
import { errorText, exitCodeOf, UsageError } from "./errors.ts";
import { jsonLine, printable, table } from "./output.ts";

describe("jsonLine", () => {
  test("is JSON of the same value, without a character that a terminal obeys or hides", () => {
    const value = { "\u001b[31mred": "a\u202eb\u0085c\u200d👩‍🚀\ue000\u2028\ud800" };
    const line = jsonLine(value);
    expect(JSON.parse(line)).toEqual(value);
    expect(line.slice(0, -1)).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    expect(line).toContain("\\u001b[31mred");
    expect(line).toContain("👩");
  });
  test("leaves other letters as they are", () => expect(jsonLine("naïve 開心 🍣")).toBe('"naïve 開心 🍣"\n'));
});

test("printable keeps lines and scripts, and spells out the rest", () => {
  expect(printable("a\tb\nשלום 👩‍🚀")).toBe("a\tb\nשלום 👩‍🚀");
  expect(printable("\u001b[2J\r\u009b1m\u202e")).toBe("\\u001b[2J\\u000d\\u009b1m\\u202e");
});

test("a table's columns are as wide as their widest cell", () => {
  expect(
    table(
      ["name", ">n"],
      [
        ["a", "1"],
        ["long name", "100"],
      ],
    ),
  ).toBe("name         n\na            1\nlong name  100\n");
});

describe("errors", () => {
  test("are one line without a stack trace", () => {
    const error = new ModelFormatError("OFFSETS", "\u001b[31mred: data_offsets\nbegin at 4");
    expect(errorText(error, false)).toBe("ingle: \\u001b[31mred: data_offsets begin at 4\n");
    expect(errorText(new UsageError("--x: is 1"), true)).toBe("ingle: --x: is 1\n");
    expect([exitCodeOf(error), exitCodeOf(new UsageError("")), exitCodeOf("text")]).toEqual([1, 2, 1]);
  });
  test("with --verbose say where, and what was behind", () => {
    const error = new ModelFormatError("X", "broken", { cause: new Error("the reason") });
    expect(errorText(error, true)).toMatch(/^ingle: broken\n.*at .*output\.test.*because of .*the reason/s);
  });
  test("that nobody expected point to --verbose", () => {
    expect(errorText(new TypeError("x is undefined"), false)).toBe(
      "ingle: x is undefined; run it again with --verbose to see where\n",
    );
  });
});
