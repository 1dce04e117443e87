/**
 * The inner product of wide workgroups for several rows of x: the sibling of matmul.ts that takes few registers, with its order of summation.
 *
 * Of eight columns four are decoded and multiplied at a time, each row's sum is kept in workgroup memory between groups, and Σ x of a group is read when
 * its products are there. Compilers begin loads and decoding as early as a block of text allows, each in registers of its own, and here they mean to:
 * workgroup memory bounds how many waves there are, so that registers look free. So the text is cut in blocks, by counts and conditions that no compiler
 * knows: a half of eight columns, and in it up to four rows. What they wait for is then x from the nearest cache, beside other waves' products.
 *
 * When it wins: of affine4 two rows take 60, 56 and 56 registers on RDNA3, RDNA2 and GCN5 (navi31, navi21, vega10) where matmul.ts took 84, 80 and 84, and
 * eight 96, 96 and 92 where it took 168, 128 and 128; of every layout at most 96, for up to 3 % more vector instructions a weight (f16: 8 %). By AMD's compiler
 * (docs/performance.md); not timed on a GPU. Software adapters, which have it in tests alone, lose: lavapipe compiles eight rows for 20 s, and for 10 before.
 */
import { EARLY_SCALE, GROUP_SCALE } from "../formats/group_scales.ts";
import type { Layout, Scaling } from "../formats/layout.ts";
import { FIXED_SUMS } from "./activation.ts";
import { EARLY_FIRST, EARLY_NEXT, each, type MatmulRows } from "./matmul.ts";

/** Rows of x that are loaded at once, of all. */
const atOnce = (rows: MatmulRows): number => Math.min(rows, 4);
/** The text of each part: its first row, and how many it has. */
const parts = (rows: MatmulRows, text: (first: number, count: number) => string): string =>
  each(rows / atOnce(rows), (part) => text(part * atOnce(rows), atOnce(rows)));
/** Begins a block: params that are never 0, as no compiler knows. Neighbouring blocks of one condition would become one. */
const BLOCK = (param: "row_runs" | "group_runs" | "run_steps") => `if (params.${param} != 0u)`;

/** Declares `dot_rows(at, first, lane)` as `dotFragment` does where it is wide. */
export function wideRowsFragment(layout: Layout, rows: MatmulRows, ownSums = false): string {
  const { halves, prepare, runWords, scaling } = layout;
  const affine = scaling === "affine";
  const coded = scaling !== "none";
  return /* wgsl */ `${prepare ?? ""}${halves.code}${coded ? GROUP_SCALE[scaling] : ""}${affine ? EARLY_SCALE : ""}${FIXED_SUMS}
/** (rows, WG): what the rows have added up so far, and then their sums. */
var<workgroup> dots: array<vec4f, ${rows} * WG>;
fn x_at(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
fn dot_rows(at: Octet, first: u32, lane: u32) {
${prepare === undefined ? "" : "  prepare(lane);"}
  for (var m = 0u; m < ${rows}u; m++) { dots[m * WG + lane] = vec4f(); }
  /** 2, which no compiler may know and unroll. */
  let halves = min(params.row_runs + 1u, 2u);
  var w = (at.block * params.row_runs + at.run) * ${runWords * 8}u + at.quad;
  var step = 0u;
  var k = first * params.x_stride + 8u * at.run;
${coded ? "  let s = at.block * params.param_words * 8u + at.quad;" : ""}
${affine ? `  var run = at.run;\n${EARLY_FIRST}` : ""}
  for (var g = at.group; g < at.end; g++) {
${each(rows, (m) => `    var d${m} = vec4f();`)}
    for (var r = 0u; r < params.group_runs; r++) {
      for (var i = 0u; i < params.run_steps; i++) {
${coded ? "        let c = codes(w, step + i);\n        var half = c.low;" : ""}
        for (var h = 0u; h < halves; h++) {
${coded ? "" : "          let half = half_of(w, 2u * (step + i) + h);"}
${decoded(layout)}
${parts(rows, (first, count) => products(first, count, scaling))}
${coded ? "          half = c.high;" : ""}
          k++;
        }
      }
      step += params.run_steps;
      if (step == 4u) { step = 0u; w += ${runWords * 8}u; }
    }
${affine ? (ownSums ? parts(rows, addedSums) : storedSums(rows)) : ""}
${folded(scaling, rows)}
  }
}`;
}

/** Numbers by floating codes are long to decode: two columns of them are a block. */
function decoded({ halves: { column }, scaling }: Layout): string {
  if (scaling !== "scale") return each(4, (b) => `          let q${b} = ${column(b)};`);
  return `          let q0 = ${column(0)};
          let q1 = ${column(1)};
          var q2 = vec4f();
          var q3 = vec4f();
          ${BLOCK("row_runs")} {
            q2 = ${column(2)};
            q3 = ${column(3)};
          }`;
}

/** Four columns of some rows of x; the first rows are loaded while integer codes are decoded. */
function products(first: number, count: number, scaling: Scaling): string {
  const begin = first > 0 ? `${BLOCK("run_steps")} {` : scaling === "scale" ? `${BLOCK("group_runs")} {` : "{";
  return `          ${begin}
${each(count, (i) => `            let a${i} = x[k + ${first + i}u * params.x_stride];`)}
${each(count, (i) =>
  ["x", "y", "z", "w"]
    .map((column, b) => `            d${first + i} = fma(q${b}, vec4f(a${i}.${column}), d${first + i});`)
    .join("\n"),
)}
          }`;
}

/** Σ x of the group's runs, which its producer stored. */
function storedSums(rows: number): string {
  return `${each(rows, (m) => `    var run_sum${m} = 0.0;`)}
    for (var r = 0u; r < params.group_runs; r++) {
${each(rows, (m) => `      run_sum${m} += x_at(params.x_sums + (first + ${m}u) * params.x_runs + run);`)}
      run++;
    }`;
}

/** Σ x of some rows from x, whose quads are read once more: beside the products their sums would take 32 registers. Groups are whole runs. */
function addedSums(first: number, count: number): string {
  const every = (line: (m: number) => string): string => each(count, (i) => line(first + i));
  return `    var k${first} = k - 8u * params.group_runs;
${every((m) => `    var run_sum${m} = 0.0;`)}
    for (var r = 0u; r < params.group_runs; r++) {
${every((m) => `      var quads${m} = vec4f();`)}
      for (var i = 0u; i < 2u * params.run_steps; i++) {
${every((m) => `        quads${m} += x[k${first} + ${m}u * params.x_stride];`)}
        k${first}++;
      }
${every((m) => `      run_sum${m} += sum4(quads${m});`)}
    }`;
}

/** Adds a group to what is kept. */
function folded(scaling: Scaling, rows: number): string {
  const kept = (m: number, place: string): string => `dots[${m}u * WG + ${place}]`;
  if (scaling === "none") return each(rows, (m) => `    ${kept(m, "lane")} += d${m};`);
  if (scaling === "affine")
    return `    let gs = early_scale(word, s, g, params.groups, params.scale_type);${EARLY_NEXT}
${each(rows, (m) => `    ${kept(m, "lane")} = fma(gs.bias, vec4f(run_sum${m}), fma(gs.scale, d${m}, ${kept(m, "lane")}));`)}`;
  // The lane in other words, so that the addresses are worked out here and not kept from the beginning on, in a register each.
  return `    let own = (lane & 56u) + at.quad;
    let gs = group_scale(s, g, params.groups, params.scale_type);
${each(rows, (m) => `    ${kept(m, "own")} = fma(gs.scale, d${m}, ${kept(m, "own")});`)}`;
}
