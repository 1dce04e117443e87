/** norm_gate_up whose workgroup is one subgroup: fragments/matmul.ts and fours_dot.ts say when it wins. It has the block of gate rows, then that of up rows. */
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { ACTIVATE } from "./fragments/act.ts";
import { each, type MatmulRows, type SharedFrom } from "./fragments/matmul.ts";
import { auxQuad, inQuadOrder, quadsOf, sharedDotFragment, subgroupNorm } from "./fragments/subgroup_rows.ts";
import { lanesOf } from "./fragments/wide.ts";
import { firstRow } from "./fragments/window.ts";

/** The code behind the declarations. */
export function normGateUpSubgroup(layout: LayoutName, rows: MatmulRows, from: SharedFrom): string {
  const [quads, lanes] = [quadsOf(from), lanesOf(from)];
  const dots = quads * rows;
  return /* wgsl */ `${sharedDotFragment(layouts[layout], rows, from, { places: 2 })}${subgroupNorm(rows, from)}${ACTIVATE}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let first = ${firstRow(from, rows)};
  norm_of_x(first, lane);
  let run = params.first_pair + wg.x;
  var half = 0u;
  loop {
    dot_rows(wg.x * 2u + half, first, lane, half * ${dots}u);
    let n = (run * 2u + half) * 8u + lane;
${each(quads, (q) => `    let bias${q} = ${auxQuad("params.bias", `(n + ${lanes * q}u)`, "vec4f()")};`)}
    var m = 0u;
    loop {
      let at = half * ${dots}u + ${quads}u * m;
      let delta_at = (first + m) * params.delta_stride + n;
${each(
  quads,
  (q) => `      var v${q} = fma(dots[at + ${q}u], vec4f(inverse_rms[m]), bias${q});
      if (params.delta_stride != NONE) { v${q} += delta[delta_at + ${lanes * q}u]; }
      dots[at + ${q}u] = v${q};`,
)}
      m++;
      continuing { break if m == ${rows}u; }
    }
    half++;
    continuing { break if half == 2u; }
  }
  var i = 0u;
  loop {
    let u = activate(dots[i], params.activation) * dots[${dots}u + i];
    let at = 4u * ((first + (i >> ${quads - 1}u)) * params.out_stride + run * 8u + ${lanes}u * (i & ${quads - 1}u) + lane);
    out[at] = u.x;
    out[at + 1u] = u.y;
    out[at + 2u] = u.z;
    out[at + 3u] = u.w;
    dots[i] = u;
    i++;
    continuing { break if i == ${dots}u; }
  }
  var m = 0u;
  loop {
${each(quads, (q) => `    let u${q} = dots[${quads}u * m + ${q}u];`)}
${inQuadOrder(
  from,
  (q) => `u${q}`,
  (u, isFirst) => (isFirst ? `    var sum = ${u};` : `    sum += ${u};`),
)}
    if (lane == 0u) { out[params.out_sums + (first + m) * params.out_runs + run] = sum4(sum); }
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
}
