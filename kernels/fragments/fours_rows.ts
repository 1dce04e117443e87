/**
 * What matmuls for subgroups of four lanes (fours_dot.ts) do around the inner product without workgroup memory: the norm's factor before it, sums of a run behind it.
 */
import { QUADS } from "./fours_dot.ts";
import { each, type MatmulRows } from "./matmul.ts";

/** Lanes of a workgroup. */
const LANES = 4;

/** WGSL for all quads of a block one after the other: `next` has the text that gives one of them, and whether it is the first. */
export const inQuadOrder = (quad: (q: number) => string, next: (given: string, isFirst: boolean) => string): string =>
  each(QUADS * LANES, (i) => next(`subgroupBroadcast(${quad(Math.floor(i / LANES))}, ${i % LANES}u)`, i === 0));

/** As `normFragment`: `norm_of_x(first, lane)` leaves `inverse_rms[m]`; a lane adds up two of the eight chains of each row. */
export const foursNorm = (rows: MatmulRows): string => /* wgsl */ `
var<private> inverse_rms: array<f32, ${rows}>;
fn norm_of_x(first: u32, lane: u32) {
  var m = 0u;
  loop {
    let at = params.x_squares + (first + m) * params.x_runs;
    var chain0 = 0.0;
    var chain1 = 0.0;
    var i = lane;
    loop {
      chain0 += select(0.0, x_at(at + i), i < params.x_runs);
      chain1 += select(0.0, x_at(at + i + 4u), i + 4u < params.x_runs);
      i += 8u;
      continuing { break if i - lane >= params.x_runs; }
    }
    var total = 0.0;
${inQuadOrder(
  (q) => `chain${q}`,
  (chain, isFirst) => `    total ${isFirst ? "" : "+"}= ${chain};`,
)}
    inverse_rms[m] = select(1.0 / sqrt(total / params.hidden_size + params.eps), 1.0, params.x_squares == NONE);
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;

/** WGSL for four numbers of aux from `base + 4 n` on, or others where the param `base` is NONE. */
export const auxQuad = (base: string, n: string, otherwise: string): string =>
  `select(vec4f(aux[${base} + 4u * ${n}], aux[${base} + 4u * ${n} + 1u], aux[${base} + 4u * ${n} + 2u], aux[${base} + 4u * ${n} + 3u]), ${otherwise}, ${base} == NONE)`;
