/** Counts values that are not numbers, or infinite, in the bytes of a tensor: the format allows them, and a model is useless with them. */

import { DTYPE_BITS, type Dtype } from "./tensorInfo.ts";

// For each dtype that has such values: the byte or bytes at the value's end (little endian, so the sign and exponent), masked to the
// exponent, when all ones. E4M3 has no infinity and spends only its last code on NaN; the FNUZ types have NaN at minus zero.
const CHECKS: ReadonlyMap<Dtype, (bytes: Uint8Array, end: number) => boolean> = new Map<
  Dtype,
  (bytes: Uint8Array, end: number) => boolean
>([
  ["F16", (bytes, end) => ((bytes[end] ?? 0) & 0x7c) === 0x7c],
  ["BF16", eightBitExponent],
  ["F32", eightBitExponent],
  ["F64", (bytes, end) => ((bytes[end] ?? 0) & 0x7f) === 0x7f && ((bytes[end - 1] ?? 0) & 0xf0) === 0xf0],
  ["F8_E5M2", (bytes, end) => ((bytes[end] ?? 0) & 0x7c) === 0x7c],
  ["F8_E4M3", (bytes, end) => ((bytes[end] ?? 0) & 0x7f) === 0x7f],
  ["F8_E8M0", (bytes, end) => bytes[end] === 0xff],
  ["F8_E4M3FNUZ", (bytes, end) => bytes[end] === 0x80],
  ["F8_E5M2FNUZ", (bytes, end) => bytes[end] === 0x80],
]);

function eightBitExponent(bytes: Uint8Array, end: number): boolean {
  return ((bytes[end] ?? 0) & 0x7f) === 0x7f && ((bytes[end - 1] ?? 0) & 0x80) === 0x80;
}

/**
 * How many values of `bytes` are NaN or infinite; 0 for whole numbers and for types that have neither. Found by their bits.
 * Throws RangeError where `bytes` ends inside a value: stream with a `chunkBytes` that is a multiple of 8.
 */
export function countNonFinite(dtype: Dtype, bytes: Uint8Array): number {
  const check = CHECKS.get(dtype);
  if (check === undefined) return 0;
  const size = DTYPE_BITS[dtype] / 8;
  if (bytes.length % size !== 0) {
    throw new RangeError(`count non-finite: ${bytes.length} bytes of ${dtype}, expected a multiple of ${size}`);
  }
  let count = 0;
  for (let end = size - 1; end < bytes.length; end += size) if (check(bytes, end)) count++;
  return count;
}
