/** Experts' cases of every run meet what a mixture can meet, whatever their seeds drew. */
import { describe, expect, test } from "vitest";
import { namedCases } from "../cases.ts";

const titles = namedCases()
  .map(({ title }) => title)
  .filter((title) => title.startsWith("experts "));

describe.each(["fused", "tiled"])("experts %s, against a dense loop over them", (path) => {
  const own = titles.filter((title) => title.startsWith(`experts ${path} `));
  test.each([
    ["one row", / rows=1 /],
    ["32 rows", / rows=32 /],
    ["all tokens to the same experts", /[ ,]same /],
    ["all of 32 tokens to the same experts", / rows=32 .*[ ,]same /],
    ["an expert that nobody is sent to", /[ ,]not the last /],
    ["an expert that none of 32 tokens is sent to", / rows=32 .*[ ,]not the last /],
    ["a residual stream of 1e5", /spread=100000 /],
    ["integer codes", / affine4\//],
  ])("%s", (_, pattern) => {
    // The flags of a title may come in any number, and its seed ends it.
    expect(
      own.filter((title) => pattern.test(title.replace(/,(?=spread)/g, " ").replace(" seed", "  seed"))),
    ).not.toEqual([]);
  });
});
