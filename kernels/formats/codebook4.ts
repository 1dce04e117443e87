/**
 * codebook4: codes of 4 bits into a table of 16 numbers, with a scale for each group of a row: NF4 and FP4 of bitsandbytes.
 *
 *   w[r, c] = scale[r, c / group] · table[code]
 *
 * The table belongs to the checkpoint and lies in the buffer of norms and biases (`aux`) from `params.table` on; a workgroup copies it once.
 * Source: Dettmers et al. 2023, "QLoRA".
 */
import { eightOf, halvesOf } from "./bit_planes.ts";
import type { Layout } from "./layout.ts";

const LOOKED_UP = /* wgsl */ `
fn looked_up(code: vec4u) -> vec4f { return vec4f(book[code.x], book[code.y], book[code.z], book[code.w]); }`;
const number = (codes: string) => `looked_up(${codes})`;

/** Codes of 4 bits in one plane. */
export const codebook4: Layout = {
  name: "codebook4",
  planes: [4],
  runWords: 4,
  scaling: "scale",
  prepare: /* wgsl */ `
var<workgroup> book: array<f32, 16>;
fn prepare(lane: u32) {
  for (var i = lane; i < 16u; i += WG) { book[i] = aux[params.table + i]; }
  workgroupBarrier();
}`,
  eight: `${LOOKED_UP}${eightOf([4], number)}`,
  halves: halvesOf([4], number, LOOKED_UP),
  value: (code) => code,
};
