/**
 * How a page holds keys and values, whatever their type (kv_types.ts).
 *
 * A layer has one buffer of u32 words: pages, each [K: kv_heads, words, PAGE_TOKENS][V: kv_heads, PAGE_TOKENS, words],
 * `words` = head_dim / dimensions a word, and where vectors have scales two more: the key's and its value's; of values, value_dim takes the
 * place of head_dim, there are no more, and the words of each begin at a multiple of four. Lanes that own neighbouring tokens read
 * neighbouring words of K, lanes that own neighbouring dimensions neighbouring words of V. Of latent attention a token has one vector, in K's place: its
 * value is the beginning of its key, and value_dim is 0 here.
 */
import { PAGE_TOKENS } from "../fragments/batch.ts";
import { type KvType, kvNumbers } from "./kv_types.ts";

/** u32 words that a key of a head takes in a page, with the scales of key and value where there are some. */
export const keyWords = (kvType: KvType, headDim: number): number =>
  headDim / kvNumbers[kvType].dims + (kvNumbers[kvType].scaled ? 2 : 0);
/** And a value, up to a multiple of four: loads of 128 bits find it where they may. */
export const valueWords = (kvType: KvType, valueDim: number): number =>
  4 * Math.ceil(valueDim / kvNumbers[kvType].dims / 4);
/** u32 words of a page of one layer; `valueDim` where values are not as long as keys. */
export const pageWords = (kvType: KvType, kvHeads: number, headDim: number, valueDim = headDim): number =>
  kvHeads * PAGE_TOKENS * (keyWords(kvType, headDim) + valueWords(kvType, valueDim));

/** Heads of a layer, and the sizes of their keys and values. */
export interface HeadSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** Params that tell a kernel of heads, and of pages with values of their own. */
export const pageParams = (kvType: KvType, { heads, kvHeads, headDim, valueDim }: HeadSizes) => ({
  heads,
  kv_heads: kvHeads,
  head_dim: headDim,
  value_dim: valueDim,
  head_words: keyWords(kvType, headDim),
  value_words: valueWords(kvType, valueDim),
  page_words: pageWords(kvType, kvHeads, headDim, valueDim),
  value_base: pageWords(kvType, kvHeads, headDim, 0),
});

/** `v_at` of pages with values of their own, and of those where a value is the beginning of its key. */
const VALUE_AT = {
  own: /* wgsl */ `
fn v_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 {
  return page * params.page_words + params.value_base + (kv_head * PAGE + token) * params.value_words + word;
}`,
  latent: /* wgsl */ `
fn v_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 { return k_at(page, kv_head, word, token); }`,
} as const;

/** Where the scale of a key and that of a value lie. */
const scalesAt = (dims: number): string => /* wgsl */ `
fn k_scale_at(page: u32, kv_head: u32, token: u32) -> u32 { return k_at(page, kv_head, params.head_dim / ${dims}u, token); }
fn v_scale_at(page: u32, kv_head: u32, token: u32) -> u32 { return k_at(page, kv_head, params.head_dim / ${dims}u + 1u, token); }`;

/** `k_at`, `v_at`: index of a word; `k_scale_at`, `v_scale_at` where scaled; what the type declares. `kv` is bound in the kernel's way. */
export function kvFragment(kvType: KvType, values: keyof typeof VALUE_AT = "own"): string {
  const { dims, scaled, code } = kvNumbers[kvType];
  return /* wgsl */ `
const PAGE = ${PAGE_TOKENS}u;
fn k_at(page: u32, kv_head: u32, word: u32, token: u32) -> u32 {
  return page * params.page_words + (kv_head * params.head_words + word) * PAGE + token;
}${VALUE_AT[values]}${scaled ? scalesAt(dims) : ""}${code}`;
}
