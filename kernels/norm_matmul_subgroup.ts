/** norm_matmul whose workgroup is one subgroup: fragments/matmul.ts and fours_dot.ts say when it wins. */
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { each, type MatmulRows, type SharedFrom } from "./fragments/matmul.ts";
import { auxQuad, quadsOf, sharedDotFragment, subgroupNorm } from "./fragments/subgroup_rows.ts";
import { lanesOf } from "./fragments/wide.ts";
import { firstRow } from "./fragments/window.ts";

/** The code behind the declarations. */
export function normMatmulSubgroup(layout: LayoutName, rows: MatmulRows, from: SharedFrom): string {
  const [quads, lanes] = [quadsOf(from), lanesOf(from)];
  return /* wgsl */ `${sharedDotFragment(layouts[layout], rows, from)}${subgroupNorm(rows, from)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let first = ${firstRow(from, rows)};
  norm_of_x(first, lane);
  dot_rows(wg.x, first, lane, 0u);
  let n = wg.x * 8u + lane;
${each(quads, (q) => `  let bias${q} = ${auxQuad("params.bias", `(n + ${lanes * q}u)`, "vec4f()")};`)}
  var m = 0u;
  loop {
    let at = (first + m) * params.out_stride + params.out_offset + n;
    let delta_at = (first + m) * params.delta_stride + params.out_offset + n;
${each(
  quads,
  (q) => `    var y${q} = fma(dots[${quads}u * m + ${q}u], vec4f(inverse_rms[m]), bias${q});
    if (params.delta_stride != NONE) { y${q} += delta[delta_at + ${lanes * q}u]; }
    out[at + ${lanes * q}u] = y${q};`,
)}
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
}
