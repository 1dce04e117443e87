/**
 * The inner product for subgroups of four lanes: the sibling of matmul.ts for SwiftShader, with its order of summation.
 *
 * Four lanes read a quad each of half a run, 16 columns, and give it to each other; where groups may have 8 columns, two read 8. A loop over groups, one over
 * their steps in it, both ending with their conditions.
 *
 * When it wins: where a value loaded is some fifty instructions for four lanes, whatever its address, and a broadcast six; where a vector is shifted
 * lane by lane, so that codes are cut out by masks; where both sides of a branch are run, and a loop that begins with its condition runs once more than
 * it says. SmolLM2-135M (4 bits, f32) is scored on SwiftShader at 4.5 tokens a second with it and attention's sibling (attentionCode4.ts), and at 1.4 without.
 */
import { GROUP_SCALE } from "../formats/group_scales.ts";
import { EIGHT, type Layout } from "../formats/layout.ts";
import { FIXED_SUMS } from "./activation.ts";
import { each, type MatmulRows } from "./matmul.ts";

const COMPONENTS = ["x", "y", "z", "w"] as const;

/**
 * Declares `dot_rows` as `dotFragment` does where it is not wide. Sums lie in arrays that a loop indexes too: as variables, each of their numbers would
 * cost a dozen instructions wherever paths meet, and memory costs a few.
 */
export function foursDotFragment(
  { eight, eightByMasks, prepare, runWords, scaling }: Layout,
  rows: MatmulRows,
  ownSums = false,
): string {
  const affine = scaling === "affine";
  const added = affine && ownSums; // Σ x, beside the products
  const steps = scaling === "scale" ? 1 : 2; // of 8 columns, taken at once: groups are whole numbers of them
  const lanes = 2 * steps;
  return /* wgsl */ `${EIGHT}${prepare ?? ""}${eightByMasks ?? eight}${scaling === "none" ? "" : GROUP_SCALE[scaling]}${FIXED_SUMS}
var<workgroup> dots: array<vec4f, ${rows} * WG>;
fn x_at(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
fn dot_rows(block: u32, quad: u32, first: u32, lane: u32) {
${prepare === undefined ? "" : "  prepare(lane);"}
  var acc: array<vec4f, ${rows}>;
  var d: array<vec4f, ${rows}>;
${added ? `  var quads: array<vec4f, ${rows}>;\n  var total: array<vec4f, ${rows}>;` : ""}
  for (var m = 0u; m < ${rows}u; m++) {
    acc[m] = vec4f();
    d[m] = vec4f();
${added ? "    quads[m] = vec4f();\n    total[m] = vec4f();" : ""}
  }
${each(rows, (m) => `  let k${m} = (first + ${m}u) * params.x_stride + (lane & ${lanes - 1}u);`)}
${scaling === "none" ? "" : "  let s = block * params.param_words * 8u + quad;"}
  let group_units = params.group_runs * params.run_steps / ${steps}u;
  var w = block * params.row_runs * ${runWords * 8}u + quad;
  var step = 0u;
  var k = 0u;
  var g = 0u;
  loop {
    var left = group_units;
    loop {
${each(steps, (i) => `      let e${i} = eight(w, step + ${i}u);`)}
${each(rows, (m) => products(m, lanes, added))}
      k += ${lanes}u;
      step = (step + ${steps}u) & 3u;
      let run_ends = step == 0u;
      w += select(0u, ${runWords * 8}u, run_ends);
${added ? each(rows, runSum) : ""}
      left--;
      continuing { break if left == 0u; }
    }
${scaling === "none" ? "" : "    let gs = group_scale(s, g, params.groups, params.scale_type);"}
${affine ? (added ? each(rows, (m) => `    let sum${m} = total[${m}];\n    total[${m}] = vec4f();`) : groupSums(rows)) : ""}
${each(rows, (m) => `    acc[${m}] = ${folded(scaling, m)};\n    d[${m}] = vec4f();`)}
    g++;
    continuing { break if g == params.groups; }
  }
  for (var m = 0u; m < ${rows}u; m++) { dots[m * WG + lane] = acc[m]; }
}`;
}

/** The products of a row: four columns from each of some lanes. */
const products = (m: number, lanes: number, added: boolean): string => `      {
        let own = x[k${m} + k];
        var sum = d[${m}];
${each(lanes, (l) => fourColumns(m, l, added))}
        d[${m}] = sum;
      }`;

const fourColumns = (m: number, l: number, added: boolean): string =>
  `        let a${l} = subgroupBroadcast(own, ${l}u);
${each(4, (c) => `        sum = fma(e${l >> 1}.q${4 * (l & 1) + c}, vec4f(a${l}.${COMPONENTS[c]}), sum);`)}${added ? `\n        quads[${m}] += a${l};` : ""}`;

function folded(scaling: Layout["scaling"], m: number): string {
  if (scaling === "none") return `acc[${m}] + d[${m}]`;
  const scaled = `fma(gs.scale, d[${m}], acc[${m}])`;
  return scaling === "scale" ? scaled : `fma(gs.bias, sum${m}, ${scaled})`;
}

/** Adds Σ x of a run, taken with the products, where it ends. */
const runSum = (
  m: number,
): string => `      total[${m}] = select(total[${m}], total[${m}] + vec4f(sum4(quads[${m}])), run_ends);
      quads[${m}] = select(quads[${m}], vec4f(), run_ends);`;

/** Σ x of the group, run by run: a lane has the sums of a row, or two. */
function groupSums(rows: MatmulRows): string {
  const shared = Math.ceil(rows / 4);
  const row = (i: number) => (rows === 1 ? "0u" : `min(${4 * i}u + (lane & 3u), ${rows - 1}u)`);
  const sum = (m: number) => (rows === 1 ? "own0" : `subgroupBroadcast(own${m >> 2}, ${m & 3}u)`);
  const at = (i: number) => `params.x_sums + (first + ${row(i)}) * params.x_runs + g * params.group_runs`;
  return `${each(shared, (i) => `    var own${i} = 0.0;\n    let at${i} = ${at(i)};`)}
    var r = 0u;
    loop {
${each(shared, (i) => `      own${i} += x_at(at${i} + r);`)}
      r++;
      continuing { break if r == params.group_runs; }
    }
${each(rows, (m) => `    let sum${m} = vec4f(${sum(m)});`)}`;
}
