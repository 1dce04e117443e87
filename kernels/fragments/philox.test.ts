import { expect, test } from "vitest";
import { EXTREME_SEEDS } from "../sample.cases.ts";
import { PURPOSE, philox, unitInterval } from "./philox.ts";

const PI = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344] as const;

// Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds.
test.each([
  { counter: [0, 0, 0, 0], key: [0, 0], want: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    want: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  { counter: PI, key: [0xa4093822, 0x299f31d0], want: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1] },
] as const)("equals Random123's published numbers for counter $counter", ({ counter, key, want }) => {
  expect(philox(counter, key)).toEqual(want);
});

test("a number below 1 has 24 bits, from 0 to the last one before 1", () => {
  expect(unitInterval(0)).toBe(0);
  expect(unitInterval(0xff)).toBe(0);
  expect(unitInterval(0xffffffff)).toBe(1 - 2 ** -24);
  expect(Math.fround(unitInterval(0xffffffff))).toBe(1 - 2 ** -24);
});

test("the seeds of the first and the last token draw what they are named for", () => {
  const first = (seed: number) => unitInterval(philox([0, 0, PURPOSE.sample, 0], [seed, 0])[0]);
  expect(first(EXTREME_SEEDS.zero)).toBe(0);
  expect(first(EXTREME_SEEDS.last)).toBe(1 - 2 ** -24);
});

test("numbers of other positions, choices, purposes and seeds differ", () => {
  const numbers = [
    philox([0, 0, 0, 0], [1, 2]),
    philox([1, 0, 0, 0], [1, 2]),
    philox([0, 1, 0, 0], [1, 2]),
    philox([0, 0, PURPOSE.accept, 0], [1, 2]),
    philox([0, 0, 0, 0], [2, 2]),
    philox([0, 0, 0, 0], [1, 3]),
  ].map(([a]) => a);
  expect(new Set(numbers).size).toBe(numbers.length);
});
