import fc from "fast-check";
import { expect, test } from "vitest";
import { countNonFinite } from "./nonFinite.ts";
import { DTYPE_BITS } from "./tensorInfo.ts";

const bytesOf = (values: Float32Array | Float64Array | Uint16Array) => new Uint8Array(values.buffer);

test("for every list of floats, those that are not finite are counted", () => {
  const float = fc.oneof(
    fc.float(),
    fc.constantFrom(Number.NaN, Infinity, -Infinity, 3.4028234663852886e38, 1e-45, -0),
  );
  fc.assert(
    fc.property(fc.array(float), (values) => {
      const count = values.filter((value) => !Number.isFinite(value)).length;
      expect(countNonFinite("F32", bytesOf(Float32Array.from(values)))).toBe(count);
      expect(countNonFinite("F64", bytesOf(Float64Array.from(values)))).toBe(count);
      const words = new Uint16Array(Float32Array.from(values).buffer).filter((_word, i) => i % 2 === 1);
      const kept = values.filter((value) => Number.isNaN(value) || Math.abs(value) === Infinity).length;
      expect(countNonFinite("BF16", bytesOf(words))).toBe(kept);
    }),
  );
});

// Of all 65,536 or 256 codes: two signs, the largest exponent, every fraction.
test.each([
  ["F16", 2 * 1024],
  ["BF16", 2 * 128],
] as const)("%s has %i codes that are not finite", (dtype, count) => {
  expect(countNonFinite(dtype, bytesOf(Uint16Array.from({ length: 65536 }, (_, i) => i)))).toBe(count);
});

test.each([
  ["F8_E5M2", 2 * 4],
  ["F8_E4M3", 2],
  ["F8_E8M0", 1],
  ["F8_E4M3FNUZ", 1],
  ["F8_E5M2FNUZ", 1],
  ["U8", 0],
  ["I8", 0],
  ["BOOL", 0],
  ["F4", 0],
] as const)("%s has %i codes that are not finite", (dtype, count) => {
  expect(
    countNonFinite(
      dtype,
      Uint8Array.from({ length: 256 }, (_, i) => i),
    ),
  ).toBe(count);
});

test("bytes that end inside a value are refused", () => {
  expect(DTYPE_BITS.F32).toBe(32);
  expect(() => countNonFinite("F32", new Uint8Array(6))).toThrow("6 bytes of F32, expected a multiple of 4");
});
