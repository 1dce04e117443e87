/** matmul_residual whose workgroup is one subgroup: fragments/matmul.ts and fours_dot.ts say when it wins. */
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { each, type MatmulRows, type SharedFrom } from "./fragments/matmul.ts";
import { auxQuad, inQuadOrder, quadsOf, sharedDotFragment } from "./fragments/subgroup_rows.ts";
import { lanesOf } from "./fragments/wide.ts";
import { firstRow } from "./fragments/window.ts";

/** The code behind the declarations. */
export function matmulResidualSubgroup(
  layout: LayoutName,
  rows: MatmulRows,
  ownSums: boolean,
  from: SharedFrom,
): string {
  const [quads, lanes] = [quadsOf(from), lanesOf(from)];
  return /* wgsl */ `${sharedDotFragment(layouts[layout], rows, from, { ownSums })}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let first = ${firstRow(from, rows)};
  dot_rows(wg.x, first, lane, 0u);
  let run = params.first_block + wg.x;
  let n = run * 8u + lane;
${each(
  quads,
  (q) => `  let bias${q} = ${auxQuad("params.bias", `(n + ${lanes * q}u)`, "vec4f()")};
  let weight${q} = ${auxQuad("params.norm_weight", `(n + ${lanes * q}u)`, "vec4f(1.0)")};`,
)}
  var m = 0u;
  loop {
    let i = (first + m) * params.y_stride + n;
    let delta_at = (first + m) * params.delta_stride + n;
${each(quads, (q) => outputs(q, { quads, lanes }))}
${inQuadOrder(
  from,
  (q) => `u${q}`,
  (u, isFirst) => (isFirst ? `    var sum = ${u};` : `    sum += ${u};`),
)}
    var v = vec4f();
${inQuadOrder(
  from,
  (q) => `v${q}`,
  (given, isFirst) => `    v = ${given};\n    ${isFirst ? "var square = v * v" : "square = fma(v, v, square)"};`,
)}
    let at_run = (first + m) * params.y_runs + run;
    if (lane == 0u) {
      z[params.z_sums + at_run] = sum4(sum);
      z[params.z_squares + at_run] = sum4(square);
    }
    m++;
    continuing { break if m == ${rows}u; }
  }
}`;
}

/** Of a quad: `v`, the residual stream, and `u`, what the next norm's weight makes of it. */
const outputs = (
  q: number,
  { quads, lanes }: { quads: number; lanes: number },
): string => `    let i${q} = i + ${lanes * q}u;
    var v${q} = dots[${quads}u * m + ${q}u] + bias${q};
    if (params.delta_stride != NONE) { v${q} += delta[delta_at + ${lanes * q}u]; }
    v${q} += y[i${q}];
    y[i${q}] = v${q};
    let u${q} = weight${q} * v${q};
${["x", "y", "z", "w"].map((c, j) => `    z[4u * i${q} + ${j}u] = u${q}.${c};`).join("\n")}`;
