/** Patterns of module paths: published ones pass, and what would be tried for ever does not. */
import { expect, test } from "vitest";
import { matchesQuickly } from "./modulePattern.ts";

test.each([
  ".*self_attn\\.(q|k|v|o)_proj$",
  ".*mlp.*",
  ".*(q|k)_proj.*",
  "model.layers.[0-9]+.mlp.experts.[0-9]+.(gate|up|down)_proj.*",
  "^(?!.*experts).*$",
  ".*layers\\.(?:\\d|[12]\\d)\\..*_proj",
  "(?:model\\.)?layers.*",
  ".*\\(a+\\)+",
  "[(a+)+]*x",
])("is matched: %s", (pattern) => {
  expect(matchesQuickly(pattern)).toBe(true);
});

test.each(["(([a-z0-9._]+)+)+!$", "(a|a)*b", "(?:.?.?)+b", "(?<name>a*){9}b", "((a+)b?)+c", ".*.*.*.*.*.*.*!"])(
  "is not: %s",
  (pattern) => {
    expect(matchesQuickly(pattern)).toBe(false);
  },
);
