/**
 * The types that cached keys and values can have: how numbers lie in u32 words, for kernels and for the CPU.
 *
 * The one place where a type is defined; kernels of attention are the same for all of them.
 */
import { f16Bits, f16FromBits, f32Bits, f32FromBits } from "../formats/halves.ts";

/** The types there are. */
export const KV_TYPES = ["f16", "f32"] as const;
export type KvType = (typeof KV_TYPES)[number];

/** What a type is. */
interface KvNumbers {
  /** Dimensions a word. */
  readonly dims: 1 | 2;
  /** Dimensions of a value that a lane of attention sums up: those of a word. */
  readonly taken: 1 | 2;
  /** `kv_word(numbers)`: a word to store; `kv_numbers(word)`: its numbers; `kv_taken(word, i)`: those of the i-th lane that shares a value. */
  readonly code: string;
  /** The words of a head's vector. */
  encode(vector: ArrayLike<number>): number[];
  /** The vector in `words`. */
  decode(words: readonly number[]): number[];
}

/** Largest finite f16: keys and values are clamped to it, since drivers disagree on what lies beyond. */
const F16_MAX = 65504;

const half = (value: number): number =>
  Number.isFinite(value) ? f16Bits(Math.min(Math.max(value, -F16_MAX), F16_MAX)) : f16Bits(Number.NaN);

/** By name. */
export const kvNumbers: Readonly<Record<KvType, KvNumbers>> = {
  f16: {
    dims: 2,
    taken: 2,
    // The XOR with a runtime zero keeps drivers from dropping the rounding of a pack that is unpacked again. What is not finite
    // stays so: a clamp would make a number of it, and a broken weight would go unnoticed.
    code: /* wgsl */ `
fn kv_word(v: vec2f) -> u32 {
  let exponents = bitcast<vec2u>(v) & vec2u(0x7f800000u);
  let word = pack2x16float(clamp(v, vec2f(-${F16_MAX}.0), vec2f(${F16_MAX}.0))) ^ params.zero;
  return select(word, 0x7e007e00u, any(exponents == vec2u(0x7f800000u)));
}
fn kv_numbers(word: u32) -> vec2f { return unpack2x16float(word); }
fn kv_taken(word: u32, i: u32) -> vec2f { return unpack2x16float(word); }`,
    encode: (vector) =>
      Array.from({ length: vector.length / 2 }, (_, i) => {
        const [low, high] = [half(vector[2 * i] ?? Number.NaN), half(vector[2 * i + 1] ?? Number.NaN)];
        return (low | (high << 16)) >>> 0;
      }),
    decode: (words) => words.flatMap((word) => [f16FromBits(word & 0xffff), f16FromBits(word >>> 16)]),
  },
  f32: {
    dims: 1,
    taken: 1,
    code: /* wgsl */ `
fn kv_word(v: f32) -> u32 { return bitcast<u32>(v); }
fn kv_numbers(word: u32) -> f32 { return bitcast<f32>(word); }
fn kv_taken(word: u32, i: u32) -> f32 { return bitcast<f32>(word); }`,
    encode: (vector) => Array.from(vector, f32Bits),
    decode: (words) => words.map(f32FromBits),
  },
};

/** What a head's vector becomes in the cache. */
export const cached = (vector: ArrayLike<number>, kvType: KvType): Float64Array =>
  Float64Array.from(kvNumbers[kvType].decode(kvNumbers[kvType].encode(vector)));

/** WGSL of as many numbers as `kv_word` takes. */
export function numbersOf(kvType: KvType, text: (dim: number) => string): string {
  const { dims } = kvNumbers[kvType];
  return `${{ 1: "f32", 2: "vec2f" }[dims]}(${Array.from({ length: dims }, (_, dim) => text(dim)).join(", ")})`;
}

/** WGSL of one of `count` numbers that lie in a vector. */
export const numberOf = (vector: string, count: number, dim: number): string =>
  count === 1 ? vector : `${vector}.${"xyzw"[dim]}`;
