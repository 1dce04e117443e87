/** norm_matmul for subgroups of four lanes: fragments/fours_dot.ts says when it wins. */
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { foursDotFragment, QUADS } from "./fragments/fours_dot.ts";
import { auxQuad, foursNorm } from "./fragments/fours_rows.ts";
import { each, type MatmulRows } from "./fragments/matmul.ts";

/** The code behind the declarations. */
export const normMatmulCode4 = (
  layout: LayoutName,
  rows: MatmulRows,
): string => /* wgsl */ `${foursDotFragment(layouts[layout], rows)}${foursNorm(rows)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let first = wg.y * ${rows}u;
  norm_of_x(first, lane);
  dot_rows(wg.x, first, lane, 0u);
  let n = wg.x * 8u + lane;
${each(QUADS, (q) => `  let bias${q} = ${auxQuad("params.bias", `(n + ${4 * q}u)`, "vec4f()")};`)}
  var m = 0u;
  loop {
    let at = (first + m) * params.out_stride + params.out_offset + n;
    let delta_at = (first + m) * params.delta_stride + params.out_offset + n;
${each(
  QUADS,
  (q) => `    var y${q} = fma(dots[2u * m + ${q}u], vec4f(inverse_rms[m]), bias${q});
    if (params.delta_stride != NONE) { y${q} += delta[delta_at + ${4 * q}u]; }
    out[at + ${4 * q}u] = y${q};`,
)}
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
