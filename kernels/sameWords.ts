/** Results compared word by word, not number by number. */
import { fixedSums } from "./caseData.ts";
import type { ActivationShape } from "./fragments/activation.ts";
import type { Comparison } from "./testbed.ts";

/** The words behind f32s. */
export const bits = (data: Float32Array): Uint32Array => new Uint32Array(data.buffer, data.byteOffset, data.length);

/** Each against the first. */
export function equal(results: readonly (readonly [name: string, words: Uint32Array])[]): Comparison[] {
  const [first, ...others] = results;
  if (first === undefined) return [];
  return others.map(([name, got]) => ({ name: `${name} against ${first[0]}`, got, want: first[1], limit: 0 }));
}

/** Sums that a producer left against those a consumer takes by itself. */
export function sumsAsTaken(data: Float32Array, { sums: at, squares }: ActivationShape): Comparison {
  const got = bits(data.subarray(at, squares));
  return { name: "stored sums against own sums", got, want: bits(fixedSums(data.subarray(0, at))), limit: 0 };
}
