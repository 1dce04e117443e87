/** norm_gate_up for subgroups of four lanes: fragments/fours_dot.ts says when it wins. A workgroup has the block of gate rows, then that of up rows. */
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { ACTIVATE } from "./fragments/act.ts";
import { foursDotFragment, QUADS } from "./fragments/fours_dot.ts";
import { auxQuad, foursNorm, inQuadOrder } from "./fragments/fours_rows.ts";
import { each, type MatmulRows } from "./fragments/matmul.ts";

/** The code behind the declarations. */
export function normGateUpCode4(layout: LayoutName, rows: MatmulRows): string {
  const dots = QUADS * rows;
  return /* wgsl */ `${foursDotFragment(layouts[layout], rows, { places: 2 })}${foursNorm(rows)}${ACTIVATE}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let first = wg.y * ${rows}u;
  norm_of_x(first, lane);
  let run = params.first_pair + wg.x;
  var half = 0u;
  loop {
    dot_rows(wg.x * 2u + half, first, lane, half * ${dots}u);
    let n = (run * 2u + half) * 8u + lane;
${each(QUADS, (q) => `    let bias${q} = ${auxQuad("params.bias", `(n + ${4 * q}u)`, "vec4f()")};`)}
    var m = 0u;
    loop {
      let at = half * ${dots}u + 2u * m;
      let delta_at = (first + m) * params.delta_stride + n;
${each(
  QUADS,
  (q) => `      var v${q} = fma(dots[at + ${q}u], vec4f(inverse_rms[m]), bias${q});
      if (params.delta_stride != NONE) { v${q} += delta[delta_at + ${4 * q}u]; }
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
    let at = 4u * ((first + (i >> 1u)) * params.out_stride + run * 8u + 4u * (i & 1u) + lane);
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
${each(QUADS, (q) => `    let u${q} = dots[2u * m + ${q}u];`)}
${inQuadOrder(
  (q) => `u${q}`,
  (u, isFirst) => (isFirst ? `    var sum = ${u};` : `    sum += ${u};`),
)}
    if (lane == 0u) { out[params.out_sums + (first + m) * params.out_runs + run] = sum4(sum); }
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
}
