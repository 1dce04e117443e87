/** Suggestions for what was mistyped. */
import { expect, test } from "vitest";
import { nearest } from "./nearest.ts";

const WORDS = ["run", "score", "inspect", "kernels", "doctor"];
test.each([
  ["rnu", "run"],
  ["ru", "run"],
  ["scroe", "score"],
  ["kernel", "kernels"],
  ["inspekt", "inspect"],
  ["serve", undefined],
  ["", undefined],
])("%j", (typed, want) => expect(nearest(typed, WORDS)).toBe(want));
