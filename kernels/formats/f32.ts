/** f32: a weight a word. */
import { f32FromBits } from "./halves.ts";
import type { Layout } from "./layout.ts";

export const f32: Layout = {
  name: "f32",
  planes: [32],
  runWords: 32,
  scaling: "none",
  eight: /* wgsl */ `
fn eight(run: u32, step: u32) -> Eight {
  let i = run + step * 64u;
  return Eight(
    bitcast<vec4f>(words[i]), bitcast<vec4f>(words[i + 8u]), bitcast<vec4f>(words[i + 16u]), bitcast<vec4f>(words[i + 24u]),
    bitcast<vec4f>(words[i + 32u]), bitcast<vec4f>(words[i + 40u]), bitcast<vec4f>(words[i + 48u]), bitcast<vec4f>(words[i + 56u]));
}`,
  halves: {
    code: /* wgsl */ `
struct Half { a: vec4u, b: vec4u, c: vec4u, d: vec4u }
fn half_of(run: u32, half: u32) -> Half {
  let i = run + half * 32u;
  return Half(words[i], words[i + 8u], words[i + 16u], words[i + 24u]);
}`,
    column: (b) => `bitcast<vec4f>(half.${"abcd"[b]})`,
  },
  value: f32FromBits,
};
