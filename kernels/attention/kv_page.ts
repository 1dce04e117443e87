/**
 * How a page holds keys and values, for f16 and f32.
 *
 * A layer has one buffer of u32 words: pages, each [K: kv_heads, words, PAGE_TOKENS][V: kv_heads, PAGE_TOKENS, words],
 * `words` = head_dim / 2 for f16 (even dimension low) and head_dim for f32; of values, value_dim takes the place of head_dim. Lanes that own neighbouring tokens read
 * neighbouring words of K, lanes that own neighbouring dimensions neighbouring words of V. Of latent attention a token has one vector, in K's place: its
 * value is the beginning of its key, and value_dim is 0 here.
 */
import { f16Bits, f16FromBits, f32FromBits } from "../formats/halves.ts";
import { PAGE_TOKENS } from "../fragments/batch.ts";

/** The types that a cache can have. */
export const KV_TYPES = ["f16", "f32"] as const;
export type KvType = (typeof KV_TYPES)[number];

/** Dimensions a word. */
export const kvDims = (kvType: KvType): number => (kvType === "f16" ? 2 : 1);
/** u32 words of a page of one layer; `valueDim` where values are not as long as keys. */
export const pageWords = (kvType: KvType, kvHeads: number, headDim: number, valueDim = headDim): number =>
  (kvHeads * PAGE_TOKENS * (headDim + valueDim)) / kvDims(kvType);

/** Largest finite f16: keys and values are clamped to it, since drivers disagree on what lies beyond. */
export const F16_MAX = 65504;

/** What a key or value becomes in the cache. */
export function cached(value: number, kvType: KvType): number {
  if (kvType === "f32") return Math.fround(value);
  if (!Number.isFinite(value)) return Number.NaN;
  return f16FromBits(f16Bits(Math.min(Math.max(value, -F16_MAX), F16_MAX)));
}

/** The number in a word of a page. */
export const kvValue = (word: number, kvType: KvType, dim: number): number =>
  kvType === "f32" ? f32FromBits(word) : f16FromBits((word >>> (16 * dim)) & 0xffff);

/** `v_at` of pages with values of their own, and of those where a value is the beginning of its key. */
const VALUE_AT = {
  own: /* wgsl */ `
fn v_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 {
  return page * params.page_words + params.value_base + (kv_head * PAGE + token) * params.value_words + word;
}`,
  latent: /* wgsl */ `
fn v_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 { return k_at(page, kv_head, word, token); }`,
} as const;

/** `k_at`, `v_at`: index of a word; `kv_word`: one to store, rounded. `kv` is bound in the kernel's way. */
export function kvFragment(kvType: KvType, values: keyof typeof VALUE_AT = "own"): string {
  const at = /* wgsl */ `
const PAGE = ${PAGE_TOKENS}u;
fn k_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 {
  return page * params.page_words + (kv_head * params.head_words + word) * PAGE + token;
}${VALUE_AT[values]}`;
  if (kvType === "f32")
    return /* wgsl */ `${at}
fn kv_word(a: f32, b: f32) -> u32 { return bitcast<u32>(a); }`;
  // The XOR with a runtime zero keeps drivers from dropping the rounding of a pack that is unpacked again. What is not finite
  // stays so: a clamp would make a number of it, and a broken weight would go unnoticed.
  return /* wgsl */ `${at}
fn kv_word(a: f32, b: f32) -> u32 {
  let exponents = bitcast<vec2u>(vec2f(a, b)) & vec2u(0x7f800000u);
  let word = pack2x16float(clamp(vec2f(a, b), vec2f(-${F16_MAX}.0), vec2f(${F16_MAX}.0))) ^ params.zero;
  return select(word, 0x7e007e00u, any(exponents == vec2u(0x7f800000u)));
}`;
}
