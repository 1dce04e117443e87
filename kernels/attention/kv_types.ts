/**
 * The types that cached keys and values can have: how numbers lie in u32 words, for kernels and for the CPU.
 *
 * The one place where a type is defined; kernels of attention are the same for all of them.
 */
import { f16Bits, f16FromBits, f32Bits, f32FromBits, roundEven } from "../formats/halves.ts";

/** The types there are. */
export const KV_TYPES = ["f16", "f32", "int8"] as const;
export type KvType = (typeof KV_TYPES)[number];
/** Those without scales, which latent attention has: of a latent and a rotated key in one vector, one scale would fit neither. */
export const PLAIN_KV_TYPES = ["f16", "f32"] as const satisfies readonly KvType[];
export type PlainKvType = (typeof PLAIN_KV_TYPES)[number];

/** What a type is. */
interface KvNumbers {
  /** Dimensions a word. */
  readonly dims: 1 | 2 | 4;
  /** Dimensions of a value that a lane of attention sums up: those of a word, or half of them. */
  readonly taken: 1 | 2;
  /** Whether a head's vector has a scale, an f32 that what is in its words is multiplied by. */
  readonly scaled: boolean;
  /**
   * `kv_word(numbers)`: a word to store, or where scaled `kv_word(numbers, top)`, with `kv_scale(top)` its vector's scale, where top has the bits of
   * the greatest magnitude; `kv_numbers(word)`: what is in it; `kv_taken(word, i)`: the part of the value's i-th lane.
   */
  readonly code: string;
  /** The words of a head's vector, its scale the last. */
  encode(vector: ArrayLike<number>): number[];
  /** The vector in `words`. */
  decode(words: readonly number[]): number[];
}

const hex = (bits: number): string => `0x${bits.toString(16)}u`;

/** Largest finite f16: keys and values are clamped to it, since drivers disagree on what lies beyond. */
const F16_MAX = 65504;

/** A vector that is smaller throughout is zeros in int8. */
const INT8_LEAST = 1e-30;

const half = (value: number): number =>
  Number.isFinite(value) ? f16Bits(Math.min(Math.max(value, -F16_MAX), F16_MAX)) : f16Bits(Number.NaN);

/** By name. */
export const kvNumbers: Readonly<Record<KvType, KvNumbers>> = {
  f16: {
    dims: 2,
    taken: 2,
    scaled: false,
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
    scaled: false,
    code: /* wgsl */ `
fn kv_word(v: f32) -> u32 { return bitcast<u32>(v); }
fn kv_numbers(word: u32) -> f32 { return bitcast<f32>(word); }
fn kv_taken(word: u32, i: u32) -> f32 { return bitcast<f32>(word); }`,
    encode: (vector) => Array.from(vector, f32Bits),
    decode: (words) => words.map(f32FromBits),
  },
  int8: {
    dims: 4,
    taken: 2,
    scaled: true,
    // Four codes from -127 to 127, lowest dimension in the lowest byte. A vector with a number that is not finite has NaN as its scale.
    code: /* wgsl */ `
fn kv_word(v: vec4f, top: u32) -> u32 {
  if (top < ${hex(f32Bits(INT8_LEAST))} || top >= 0x7f800000u) { return 0u; }
  let codes = vec4u(vec4i(round(v * (127.0 / bitcast<f32>(top))))) & vec4u(0xffu);
  return codes.x | (codes.y << 8u) | (codes.z << 16u) | (codes.w << 24u);
}
fn kv_scale(top: u32) -> u32 {
  if (top >= 0x7f800000u) { return 0x7fc00000u; }
  return bitcast<u32>(bitcast<f32>(top) * ${1 / 127});
}
fn kv_numbers(word: u32) -> vec4f { return vec4f(vec4i(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u)); }
fn kv_taken(word: u32, i: u32) -> vec2f {
  return vec2f(vec2i(vec2u(word >> (16u * (i & 1u))) << vec2u(24u, 16u)) >> vec2u(24u));
}`,
    encode(vector) {
      const numbers = Float32Array.from(vector);
      const top = numbers.reduce((most, v) => Math.max(most, Math.abs(v)), 0); // NaN where there is one
      const inverse = Number.isFinite(top) && top >= INT8_LEAST ? Math.fround(127 / top) : 0;
      const words = Array.from({ length: numbers.length / 4 }, (_, i) => {
        const codes = [...numbers.subarray(4 * i, 4 * i + 4)].map((v) =>
          inverse === 0 ? 0 : roundEven(Math.fround(v * inverse)) & 0xff,
        );
        return codes.reduce((word, code, c) => word | (code << (8 * c)), 0) >>> 0;
      });
      return [...words, f32Bits(Number.isFinite(top) ? top * Math.fround(1 / 127) : Number.NaN)];
    },
    decode(words) {
      const scale = f32FromBits(words.at(-1) ?? Number.NaN);
      return words.slice(0, -1).flatMap((word) => [24, 16, 8, 0].map((shift) => ((word << shift) >> 24) * scale));
    },
  },
};

/** What a head's vector becomes in the cache. */
export const cached = (vector: ArrayLike<number>, kvType: KvType): Float64Array =>
  Float64Array.from(kvNumbers[kvType].decode(kvNumbers[kvType].encode(vector)));

/** WGSL of as many numbers as `kv_word` takes. */
export function numbersOf(kvType: KvType, text: (dim: number) => string): string {
  const { dims } = kvNumbers[kvType];
  return `${{ 1: "f32", 2: "vec2f", 4: "vec4f" }[dims]}(${Array.from({ length: dims }, (_, dim) => text(dim)).join(", ")})`;
}

/** WGSL of one of `count` numbers that lie in a vector. */
export const numberOf = (vector: string, count: number, dim: number): string =>
  count === 1 ? vector : `${vector}.${"xyzw"[dim]}`;
