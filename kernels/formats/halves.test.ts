import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bf16Bits, bf16FromBits, f16Bits, f16FromBits, f32Bits, f32FromBits } from "./halves.ts";

const PATTERNS = Array.from({ length: 65536 }, (_, bits) => bits);
/** The next f32 pattern up or down from that of a positive number. */
const neighbour = (value: number, step: number) => f32FromBits(f32Bits(value) + step);

describe.each([
  { name: "f16", toBits: f16Bits, fromBits: f16FromBits, infinity: 0x7c00 },
  { name: "bf16", toBits: bf16Bits, fromBits: bf16FromBits, infinity: 0x7f80 },
])("$name", ({ toBits, fromBits, infinity }) => {
  test("gives back each of the 65,536 patterns; any NaN stays one", () => {
    const wrong = PATTERNS.filter((bits) => {
      const value = fromBits(bits);
      const isNan = (bits & 0x7fff) > infinity;
      return isNan ? !Number.isNaN(value) || (toBits(value) & 0x7fff) <= infinity : toBits(value) !== bits;
    });
    expect(wrong).toEqual([]);
  });

  test("rounds to the nearest of two neighbours, and a tie to the even one", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < infinity - 1; bits++) {
      const tie = (fromBits(bits) + fromBits(bits + 1)) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const right =
        toBits(tie) === even && toBits(neighbour(tie, -1)) === bits && toBits(neighbour(tie, 1)) === bits + 1;
      const negative = toBits(-tie) === (even | 0x8000);
      if (!right || !negative) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test("grows with the number", () => {
    const finite = PATTERNS.slice(0, infinity + 1).map(fromBits);
    expect(finite.every((value, i) => i === 0 || value > (finite[i - 1] ?? Number.NaN))).toBe(true);
  });

  test("keeps the sign of zero and the infinities", () => {
    expect(toBits(0)).toBe(0);
    expect(toBits(-0)).toBe(0x8000);
    expect(Object.is(fromBits(0x8000), -0)).toBe(true);
    expect(toBits(Number.POSITIVE_INFINITY)).toBe(infinity);
    expect(fromBits(infinity | 0x8000)).toBe(Number.NEGATIVE_INFINITY);
  });
});

test("f16 ends at 65,504, and from halfway to the next step on it is an infinity", () => {
  expect(f16FromBits(0x7bff)).toBe(65504);
  expect(f16Bits(65519.99)).toBe(0x7bff);
  expect(f16Bits(65520)).toBe(0x7c00);
  expect(f16Bits(-1e9)).toBe(0xfc00);
});

test("f16 has subnormals down to 2^-24", () => {
  expect(f16FromBits(1)).toBe(2 ** -24);
  expect(f16Bits(2 ** -25)).toBe(0);
  expect(f16Bits(2 ** -25 * 1.001)).toBe(1);
  expect(f16FromBits(0x3ff)).toBe(1023 * 2 ** -24);
});

test("for every f32, no other f16 is nearer than the one chosen", () => {
  fc.assert(
    fc.property(fc.float({ min: -65504, max: 65504, noNaN: true }), (value) => {
      const bits = f16Bits(value);
      const error = Math.abs(f16FromBits(bits) - value);
      for (const other of [bits - 1, bits + 1]) {
        const there = f16FromBits(other & 0xffff);
        if (Number.isFinite(there)) expect(Math.abs(there - value)).toBeGreaterThanOrEqual(error);
      }
    }),
  );
});
