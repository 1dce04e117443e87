/**
 * The inner product for subgroups of four lanes: the sibling of matmul.ts for SwiftShader, with its order of summation.
 *
 * A workgroup is one subgroup, and a lane owns two quads of rows of a block, `lane` and `lane + 4`. Four lanes read a quad of x each of half a run, 16
 * columns, and give it to each other; where groups may have 8 columns, two read 8. A loop over groups, one over their steps in it, both
 * ending with their conditions. Nothing lies in workgroup memory, and nobody waits at a barrier.
 *
 * When it wins: where a value loaded is some fifty instructions for four lanes, whatever its address, and a broadcast six; where a vector is shifted
 * lane by lane, so that codes are cut out by masks; where both sides of a branch are run, and a loop that begins with its condition runs once more than
 * it says. 64 tokens of SmolLM2-135M (4 bits, f32) are scored on SwiftShader in 7.4 s with it and attention's sibling
 * (attentionSubgroup.ts), and in 35.9 s without.
 */
import { GROUP_SCALE4 } from "../formats/group_scales4.ts";
import { EIGHT, type Layout } from "../formats/layout.ts";
import { FIXED_SUMS } from "./activation.ts";
import { each, type MatmulRows, type SharedDotOptions } from "./matmul.ts";

const COMPONENTS = ["x", "y", "z", "w"] as const;

/** Quads of a lane. */
export const QUADS = 2;

/**
 * Declares `dot_rows(block, first, lane, to)`, which leaves the sums of x row `first + m` and the lane's quad q at `dots[to + 2 m + q]`; `dots` has
 * `places` of as many. Sums lie in arrays that a loop indexes too: as variables, each of their numbers would cost a dozen instructions wherever paths
 * meet, and memory costs a few.
 */
export function foursDotFragment(layout: Layout, rows: MatmulRows, options: SharedDotOptions = {}): string {
  const { eight, eightByMasks, prepare, runWords, scaling } = layout;
  const affine = scaling === "affine";
  const added = affine && options.ownSums === true; // Σ x, beside the products
  const steps = scaling === "scale" ? 1 : 2; // of 8 columns, taken at once: groups are whole numbers of them
  const lanes = 2 * steps;
  const places = (options.places ?? 1) * QUADS * rows;
  return /* wgsl */ `${EIGHT}${prepare ?? ""}${eightByMasks ?? eight}${scaling === "none" ? "" : GROUP_SCALE4[scaling]}${FIXED_SUMS}
var<private> dots: array<vec4f, ${places}>;
fn x_at(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
fn dot_rows(block: u32, first: u32, lane: u32, to: u32) {
${prepare === undefined ? "" : "  prepare(lane);"}
  var acc: array<vec4f, ${QUADS * rows}>;
  var d: array<vec4f, ${QUADS * rows}>;
  for (var i = 0u; i < ${QUADS * rows}u; i++) {
    acc[i] = vec4f();
    d[i] = vec4f();
  }
${
  added
    ? `  var quads: array<vec4f, ${rows}>;
  var total: array<vec4f, ${rows}>;
  for (var m = 0u; m < ${rows}u; m++) {
    quads[m] = vec4f();
    total[m] = vec4f();
  }`
    : ""
}
${each(rows, (m) => `  let k${m} = (first + ${m}u) * params.x_stride + (lane & ${lanes - 1}u);`)}
${scaling === "none" ? "" : "  let s = block * params.param_words * 8u + lane;"}
  let group_units = params.group_runs * params.run_steps / ${steps}u;
  var w = block * params.row_runs * ${runWords * 8}u + lane;
  var step = 0u;
  var k = 0u;
  var g = 0u;
  loop {
    var left = group_units;
    loop {
${each(QUADS, (q) => each(steps, (i) => `      let e${q}_${i} = eight(w + ${4 * q}u, step + ${i}u);`))}
${each(rows, (m) => products(m, lanes, added))}
      k += ${lanes}u;
      step = (step + ${steps}u) & 3u;
      let run_ends = step == 0u;
      w += select(0u, ${runWords * 8}u, run_ends);
${added ? each(rows, runSum) : ""}
      left--;
      continuing { break if left == 0u; }
    }
${scaling === "none" ? "" : each(QUADS, (q) => `    let gs${q} = group_scale(s + ${4 * q}u, g, params.groups, params.scale_type);`)}
${affine ? (added ? each(rows, (m) => `    let sum${m} = total[${m}];\n    total[${m}] = vec4f();`) : groupSums(rows)) : ""}
${each(rows, (m) => each(QUADS, (q) => folded(scaling, m, q)))}
    g++;
    continuing { break if g == params.groups; }
  }
  for (var i = 0u; i < ${QUADS * rows}u; i++) { dots[to + i] = acc[i]; }
}`;
}

/** The products of a row: four columns from each of some lanes. */
const products = (m: number, lanes: number, added: boolean): string => `      {
        let own = x[k${m} + k];
${each(QUADS, (q) => `        var sum${q} = d[${QUADS * m + q}];`)}
${each(lanes, (l) => fourColumns(m, l, added))}
${each(QUADS, (q) => `        d[${QUADS * m + q}] = sum${q};`)}
      }`;

const fourColumns = (m: number, l: number, added: boolean): string =>
  `        let a${l} = subgroupBroadcast(own, ${l}u);
${each(QUADS, (q) => each(4, (c) => `        sum${q} = fma(e${q}_${l >> 1}.q${4 * (l & 1) + c}, vec4f(a${l}.${COMPONENTS[c]}), sum${q});`))}${added ? `\n        quads[${m}] += a${l};` : ""}`;

function folded(scaling: Layout["scaling"], m: number, q: number): string {
  const i = QUADS * m + q;
  const scaled = `fma(gs${q}.scale, d[${i}], acc[${i}])`;
  const sum = { none: `acc[${i}] + d[${i}]`, scale: scaled, affine: `fma(gs${q}.bias, sum${m}, ${scaled})` }[scaling];
  return `    acc[${i}] = ${sum};\n    d[${i}] = vec4f();`;
}

/** Adds Σ x of a run, taken with the products, where it ends. */
const runSum = (
  m: number,
): string => `      total[${m}] = select(total[${m}], total[${m}] + vec4f(sum4(quads[${m}])), run_ends);
      quads[${m}] = select(quads[${m}], vec4f(), run_ends);`;

/** Σ x of the group, run by run: a lane has the sums of a row, or two. */
function groupSums(rows: MatmulRows): string {
  const shared = Math.ceil(rows / 4);
  const row = (i: number) => (rows === 1 ? "0u" : `min(${4 * i}u + lane, ${rows - 1}u)`);
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
