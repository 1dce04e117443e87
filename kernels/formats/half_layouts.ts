/** f16 and bf16: two weights a word, the even column in the low half. f16 is unpacked, so no adapter feature is needed. */
import { bf16FromBits, f16FromBits } from "./halves.ts";
import type { Layout, LayoutName } from "./layout.ts";

/** `pair` is WGSL for the two weights of the u32 `w`, as a vec2f. */
function halves(name: LayoutName, pair: string, fromBits: (bits: number) => number): Layout {
  const two = /* wgsl */ `
fn pair_of(w: u32) -> vec2f { return ${pair}; }
struct Two { even: vec4f, odd: vec4f }
fn two(w: vec4u) -> Two {
  let a = pair_of(w.x); let b = pair_of(w.y); let c = pair_of(w.z); let d = pair_of(w.w);
  return Two(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y));
}`;
  return {
    name,
    planes: [16],
    runWords: 16,
    scaling: "none",
    eight: /* wgsl */ `${two}
fn eight(run: u32, step: u32) -> Eight {
  let i = run + step * 32u;
  let a = two(words[i]); let b = two(words[i + 8u]); let c = two(words[i + 16u]); let d = two(words[i + 24u]);
  return Eight(a.even, a.odd, b.even, b.odd, c.even, c.odd, d.even, d.odd);
}`,
    halves: {
      code: /* wgsl */ `${two}
struct Half { a: Two, b: Two }
fn half_of(run: u32, half: u32) -> Half {
  let i = run + half * 16u;
  return Half(two(words[i]), two(words[i + 8u]));
}`,
      column: (b) => `half.${b < 2 ? "a" : "b"}.${b % 2 === 0 ? "even" : "odd"}`,
    },
    value: fromBits,
  };
}

/** IEEE binary16. */
export const f16 = halves("f16", "unpack2x16float(w)", f16FromBits);
/** bfloat16: the upper half of an f32. */
export const bf16 = halves("bf16", "bitcast<vec2f>(vec2u(w << 16u, w & 0xffff0000u))", bf16FromBits);
