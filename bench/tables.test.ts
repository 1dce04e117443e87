import { describe, expect, test } from "vitest";
import { csv, markdown } from "./tables.ts";

const HEAD = ["model", ">t/s"];

describe("tables", () => {
  test("Markdown has a rule that sets columns to the right, and cells that cannot break it", () => {
    expect(markdown(HEAD, [["a|b\nc", "1.0 ± 0.1"]])).toBe(
      "| model | t/s |\n| --- | ---: |\n| a\\|b c | 1.0 ± 0.1 |\n",
    );
  });

  test("CSV quotes what has a comma, a quote or a line break in it, and nothing else", () => {
    expect(
      csv(HEAD, [
        ['a "b", c', "2"],
        ["d\ne", "3"],
        ["plain ± x", ""],
      ]),
    ).toBe('model,t/s\n"a ""b"", c",2\n"d\ne",3\nplain ± x,\n');
  });

  test("no rows leave the head", () => {
    expect(csv(HEAD, [])).toBe("model,t/s\n");
    expect(markdown(HEAD, [])).toBe("| model | t/s |\n| --- | ---: |\n");
  });
});
