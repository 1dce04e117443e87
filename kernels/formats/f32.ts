/** f32: a weight a word. */
import { f32FromBits } from "./halves.ts";
import type { Layout } from "./layout.ts";

export const f32: Layout = {
  name: "f32",
  weightsPerWord: 1,
  grouped: false,
  eight: /* wgsl */ `
fn eight(i: u32) -> Eight {
  return Eight(
    bitcast<vec4f>(words[i]), bitcast<vec4f>(words[i + 8u]), bitcast<vec4f>(words[i + 16u]), bitcast<vec4f>(words[i + 24u]),
    bitcast<vec4f>(words[i + 32u]), bitcast<vec4f>(words[i + 40u]), bitcast<vec4f>(words[i + 48u]), bitcast<vec4f>(words[i + 56u]));
}`,
  codeAt: /* wgsl */ `
fn code_at(word: u32, column: u32) -> f32 { return bitcast<f32>(word); }`,
  decode: (word) => f32FromBits(word),
};
