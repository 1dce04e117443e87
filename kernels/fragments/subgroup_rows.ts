/**
 * What matmuls whose workgroup is one subgroup do around the inner product, without workgroup memory or barriers: the norm's factor before it, sums of a
 * run behind it. A block's eight quads of rows are the lanes' own, one each of eight lanes or two of four.
 */
import type { Layout } from "../formats/layout.ts";
import { foursDotFragment } from "./fours_dot.ts";
import { dotFragment, each, type MatmulRows, type SharedDotOptions, type SharedFrom } from "./matmul.ts";
import { lanesOf } from "./wide.ts";

/** Quads of rows that a lane has. */
export const quadsOf = (from: SharedFrom): number => 8 / lanesOf(from);

/** Declares `dot_rows(block, first, lane, to)`, which leaves the sums of x row `first + m` and the lane's quad q at `dots[to + quads · m + q]`. */
export const sharedDotFragment = (
  layout: Layout,
  rows: MatmulRows,
  from: SharedFrom,
  options: SharedDotOptions = {},
): string =>
  from === "broadcast4" ? foursDotFragment(layout, rows, options) : dotFragment(layout, rows, { ...options, from });

/** WGSL for all quads of a block one after the other: `next` has the text that gives one of them, and whether it is the first. */
export function inQuadOrder(
  from: SharedFrom,
  quad: (q: number) => string,
  next: (given: string, isFirst: boolean) => string,
): string {
  const lanes = lanesOf(from);
  return each(8, (i) => next(`subgroupBroadcast(${quad(Math.floor(i / lanes))}, ${i % lanes}u)`, i === 0));
}

/** As `normFragment`: `norm_of_x(first, lane)` leaves `inverse_rms[m]`; a lane adds up as many of the eight chains of each row as it has quads. */
export function subgroupNorm(rows: MatmulRows, from: SharedFrom): string {
  const [quads, lanes] = [quadsOf(from), lanesOf(from)];
  const at = (q: number) => (q === 0 ? "i" : `i + ${lanes * q}u`);
  return /* wgsl */ `
var<private> inverse_rms: array<f32, ${rows}>;
fn norm_of_x(first: u32, lane: u32) {
  var m = 0u;
  loop {
    let at = params.x_squares + (first + m) * params.x_runs;
${each(quads, (q) => `    var chain${q} = 0.0;`)}
    var i = lane;
    loop {
${each(quads, (q) => `      chain${q} += select(0.0, x_at(at + ${at(q)}), ${at(q)} < params.x_runs);`)}
      i += 8u;
      continuing { break if i - lane >= params.x_runs; }
    }
    var total = 0.0;
${inQuadOrder(
  from,
  (q) => `chain${q}`,
  (chain, isFirst) => `    total ${isFirst ? "" : "+"}= ${chain};`,
)}
    inverse_rms[m] = select(1.0 / sqrt(total / params.hidden_size + params.eps), 1.0, params.x_squares == NONE);
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
}

/** WGSL for four numbers of aux from `base + 4 n` on, or others where the param `base` is NONE. */
export const auxQuad = (base: string, n: string, otherwise: string): string =>
  `select(vec4f(aux[${base} + 4u * ${n}], aux[${base} + 4u * ${n} + 1u], aux[${base} + 4u * ${n} + 2u], aux[${base} + 4u * ${n} + 3u]), ${otherwise}, ${base} == NONE)`;
