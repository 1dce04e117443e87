/**
 * The inner product shared by every fused matmul: a lane owns four neighbouring rows of a block, whole.
 *
 *   acc[r] = Σ over groups g of ( scale[r, g] · Σ q·x + bias[r, g] · Σ x ),   in the order of the columns
 *
 * Nothing is summed across lanes, so the order of summation is the same for every number of rows of x and for every
 * way of walking the block: docs/numerics.md. Weights come by 128-bit loads; x at addresses that all lanes share. Wide
 * workgroups may split the columns in parts, whose sums are added behind it (wide.ts).
 */
import { EARLY_SCALE, GROUP_SCALE, scaleTypeCode } from "../formats/group_scales.ts";
import {
  BLOCK_COLS,
  EIGHT,
  type Layout,
  type LayoutName,
  type MatrixShape,
  paramWords,
  runCount,
} from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { type ActivationShape, FIXED_SUMS } from "./activation.ts";
import type { Narrow } from "./narrow_activation.ts";

/** Rows of x that one launch takes at once. */
export const MATMUL_ROWS = [1, 2, 4, 8] as const;
export type MatmulRows = (typeof MATMUL_ROWS)[number];

/**
 * How x reaches the lanes: each reads it at addresses that all share, or eight lanes read a quad of a run each and give it to the
 * others, and that quad comes through a window (window.ts). On software adapters a load is a hundred instructions, whatever its address, and a shuffle
 * within eight lanes is one: the second then takes 1.6 times the instructions of one row of x for four and 2.2 times for eight. A workgroup is then one
 * subgroup, without workgroup memory or barriers, behind which lavapipe would keep everything in memory: its matmuls of SmolLM2-135M take 0.82 of
 * the time for one row of x, and 0.95 for eight. Subgroups of four lanes have an inner product of their own (fours_dot.ts). GPUs have wide workgroups
 * (wide.ts), in which the eight lanes of an octet read x at addresses that they share: caches serve them.
 */
export const X_FROM = ["storage", "broadcast", "broadcast4", "wide"] as const;
/** Those of f32, or what a narrow activation holds: narrow_dot.ts. */
export type XFrom = (typeof X_FROM)[number] | Narrow;

/** Ways in which lanes of a subgroup, which is a workgroup, give x to each other. */
export type SharedFrom = "broadcast" | "broadcast4";
export const isShared = (from: XFrom): from is SharedFrom => from === "broadcast" || from === "broadcast4";

/** What a matmul's name says of it. */
export const xSuffix = (from: XFrom): string => (from === "storage" ? "" : ` ${from}`);

/** How dotFragment is varied. */
export interface DotOptions {
  /** Whether Σ x is added up beside the products, since its producer left none. */
  readonly ownSums?: boolean;
  /** Whether x rows are those in `x_rows`, which the caller fills, and not those from `first` on. */
  readonly listed?: boolean;
  readonly from?: XFrom;
  /** Blocks whose sums are kept, where lanes share x. */
  readonly places?: number;
}

/** Those of an inner product whose lanes share x. */
export type SharedDotOptions = Pick<DotOptions, "ownSums" | "places">;

/** Params of the inner product, declared by every kernel that uses it. */
export const DOT_PARAMS = {
  /** Runs of 32 columns a row; groups of a row; runs a group. */
  row_runs: "u32",
  groups: "u32",
  group_runs: "u32",
  /** Steps of 8 columns that a group takes of a run: 4, which no compiler may know and unroll, or 2 for groups of 16. */
  run_steps: "u32",
  scale_type: "u32",
  /** u32 group parameters of a row. */
  param_words: "u32",
  /** Where a table of numbers begins in aux, of the layout that has one. */
  table: "u32",
  /** Of x, in vec4f and in runs of 32; where its sums begin, if they are stored. */
  x_stride: "u32",
  x_runs: "u32",
  x_sums: "u32",
} as const;

/** What the inner product must know of a stored matrix. */
export interface StoredMatrix extends Omit<MatrixShape, "rows"> {
  readonly layout: LayoutName;
  /** Where its table of numbers lies in aux. */
  readonly tableAt?: number | undefined;
}

/** DOT_PARAMS of a matrix and the activation it multiplies; `storedSums`: whether its producer left them. */
export function dotParams(matrix: StoredMatrix, x: ActivationShape, storedSums: boolean) {
  const layout = layouts[matrix.layout];
  const span = layout.scaling === "none" ? BLOCK_COLS : matrix.group;
  return {
    row_runs: runCount(matrix.cols),
    groups: Math.ceil(matrix.cols / span),
    group_runs: Math.ceil(span / BLOCK_COLS),
    run_steps: Math.min(span, BLOCK_COLS) / 8,
    scale_type: scaleTypeCode(layout, matrix),
    param_words: paramWords(layout, matrix),
    table: matrix.tableAt ?? 0,
    x_stride: x.stride / 4,
    x_runs: x.runs,
    x_sums: storedSums ? x.sums : 0,
  };
}

/** WGSL text repeated for m = 0 … rows-1. */
export const each = (rows: number, line: (m: number) => string): string =>
  Array.from({ length: rows }, (_, m) => line(m)).join("\n");

/**
 * Declares `dot_rows(block, quad, first, lane)`: the dot products of the lane's four rows with x rows `first` …, in `dots`. Where it is
 * wide, `dot_rows(at, first, lane)` over the groups of an octet, for one row (wide_rows.ts has more); the steps of a run are then written out, so that
 * a lane waits for all their weights at once. (On software adapters that spills.) Where lanes share x, `dot_rows(block, first, lane, to)` (subgroup_rows.ts).
 *
 * Σ x of a run is read where the producer of x stored it, or else (`ownSums`) added up beside the products, in the same
 * order: eight quads one after the other, then (a + b) + (c + d). Runs of a group are added in order.
 */
export function dotFragment(layout: Layout, rows: MatmulRows, options: DotOptions = {}): string {
  const { ownSums = false, listed = false, from = "storage", places = 1 } = options;
  const columns = ["a.x", "a.y", "a.z", "a.w", "b.x", "b.y", "b.z", "b.w"];
  const { scaling } = layout;
  const sums = scaling === "affine"; // of x: what a bias is multiplied by
  const start = (m: number) => (listed ? `k + row${m} * params.x_stride` : `k + ${m}u * params.x_stride`);
  const wide = from === "wide";
  const shared = isShared(from);
  const early = wide && sums;
  const quad = wide ? "at.quad" : shared ? "lane" : "quad";
  const products = (m: number, a: string, b: string) => `        {
          let a = ${a};
          let b = ${b};
${columns.map((column, i) => `          d${m} = fma(e.q${i}, vec4f(${column}), d${m});`).join("\n")}
${sums && ownSums ? `          quads${m} += a;\n          quads${m} += b;` : ""}
        }`;
  return /* wgsl */ `${EIGHT}${layout.prepare ?? ""}${layout.eight}${scaling === "none" ? "" : GROUP_SCALE[scaling]}${early ? EARLY_SCALE : ""}${FIXED_SUMS}
${
  shared
    ? `var<private> dots: array<vec4f, ${places * rows}>;`
    : `/** (rows, WG): kept here and not in registers, so that what follows is a loop over the rows and compiles once. */
var<workgroup> dots: array<vec4f, ${rows} * WG>;`
}${listed ? `\nvar<workgroup> x_rows: array<u32, ${rows}>;` : ""}
fn x_at(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
fn dot_rows(${wide ? "at: Octet" : shared ? "block: u32" : "block: u32, quad: u32"}, first: u32, lane: u32${shared ? ", to: u32" : ""}) {
${layout.prepare === undefined ? "" : "  prepare(lane);"}
${each(rows, (m) => `  var acc${m} = vec4f();`)}
  var w = ${wide ? "(at.block * params.row_runs + at.run)" : "block * params.row_runs"} * ${layout.runWords * 8}u + ${quad};
  var step = 0u;
${listed ? each(rows, (m) => `  let row${m} = x_rows[${m}];`) : ""}
  var k = ${listed ? "0u" : shared ? "(first - params.first_row) * params.x_stride" : "first * params.x_stride"}${wide ? " + 8u * at.run" : ""};
${scaling === "none" ? "" : `  let s = ${wide ? "at.block" : "block"} * params.param_words * 8u + ${quad};`}
${sums ? `  var run = ${wide ? "at.run" : "0u"};${shared && !ownSums ? " var own_sum = 0.0;" : ""}` : ""}
${early ? `${EARLY_FIRST}\n` : ""}  for (var g = ${wide ? "at.group; g < at.end" : "0u; g < params.groups"}; g++) {
${each(rows, (m) => `    var d${m} = vec4f();${sums ? ` var run_sum${m} = 0.0;` : ""}`)}
    for (var r = 0u; r < params.group_runs; r++) {
${sums && ownSums ? each(rows, (m) => `      var quads${m} = vec4f();`) : ""}
${shared ? each(rows, (m) => `      let run_x${m} = x_window[${start(m)} - 2u * step + (lane & 7u)];`) : ""}
${
  wide && scaling !== "scale"
    ? `${each(
        4,
        (i) => `      {
        let e = eight(w, ${i}u);
${each(rows, (m) => products(m, `x[${start(m)} + ${2 * i}u]`, `x[${start(m)} + ${2 * i + 1}u]`))}
      }`,
      )}
      k += 8u;
      w += ${layout.runWords * 8}u;`
    : `      for (var i = 0u; i < params.run_steps; i++) {
        let e = eight(w, step + i);
${each(rows, (m) =>
  shared
    ? products(m, `subgroupShuffle(run_x${m}, 2u * (step + i))`, `subgroupShuffle(run_x${m}, 2u * (step + i) + 1u)`)
    : products(m, `x[${start(m)}]`, `x[${start(m)} + 1u]`),
)}
        k += 2u;
      }
      step += params.run_steps;
      if (step == 4u) { step = 0u; w += ${layout.runWords * 8}u; }`
}
${sums ? runSums(rows, options) : ""}
${sums ? "      run++;" : ""}
    }
${
  scaling === "none"
    ? each(rows, (m) => `    acc${m} += d${m};`)
    : `    let gs = ${early ? "early_scale(word, " : "group_scale("}s, g, params.groups, params.scale_type);${early ? EARLY_NEXT : ""}
${each(rows, (m) =>
  sums
    ? `    acc${m} = fma(gs.bias, vec4f(run_sum${m}), fma(gs.scale, d${m}, acc${m}));`
    : `    acc${m} = fma(gs.scale, d${m}, acc${m});`,
)}`
}
  }
${each(rows, (m) => `  dots[${shared ? `to + ${m}u` : `${m}u * WG + lane`}] = acc${m};`)}
}`;
}

/** The first group's scale and bias, and in each group those of the next: as a loop's value, which no compiler moves behind the products. */
export const EARLY_FIRST = "  var word = early_word(s, at.group, params.scale_type);";
export const EARLY_NEXT = "\n    word = early_word(s, min(g + 1u, at.end - 1u), params.scale_type);";

/**
 * Adds Σ x of the run to `run_sum`: taken with the products, or read by all lanes. Lanes that share x read one each and give it to the others: of the
 * rows, or of a single row those of eight runs.
 */
function runSums(rows: MatmulRows, { ownSums = false, listed = false, from = "storage" }: DotOptions): string {
  if (ownSums) return each(rows, (m) => `      run_sum${m} += sum4(quads${m});`);
  const row = (m: number | string) => (listed ? `x_rows[${m}]` : `(first + ${m})`);
  const sumOf = (m: number | string, at = "run") => `x_at(params.x_sums + ${row(m)} * params.x_runs + ${at})`;
  if (!isShared(from)) return each(rows, (m) => `      run_sum${m} += ${sumOf(`${m}u`)};`);
  if (rows === 1)
    return `      if ((run & 7u) == 0u) { own_sum = ${sumOf("0u", "min(run + lane, params.x_runs - 1u)")}; }
      run_sum0 += subgroupShuffle(own_sum, run & 7u);`;
  return `      own_sum = ${sumOf(`min(lane, ${rows - 1}u)`)};
${each(rows, (m) => `      run_sum${m} += subgroupBroadcast(own_sum, ${m}u);`)}`;
}

/** Params of the norm before a matmul: `x_squares` is NONE where there is none. */
export const NORM_PARAMS = { x_squares: "u32", hidden_size: "f32", eps: "f32" } as const;

/**
 * Declares `norm_of_x(first, lane)`, in uniform control flow, and then `inverse_rms[m]` = 1 / √(Σ x² / hidden + eps).
 * x already carries the norm's weight, so the factor is applied to the finished sum.
 */
export function normFragment(rows: MatmulRows): string {
  return /* wgsl */ `
var<workgroup> chains: array<f32, ${8 * rows}>;
var<workgroup> inverse_rms: array<f32, ${rows}>;
fn norm_of_x(first: u32, lane: u32) {
  if (params.x_squares == NONE) {
    if (lane < ${rows}u) { inverse_rms[lane] = 1.0; }
  } else {
    // Eight chains, then their sum: the order does not depend on the lanes there are.
    for (var c = lane; c < ${8 * rows}u; c += WG) {
      let at = params.x_squares + (first + c / 8u) * params.x_runs;
      var sum = 0.0;
      for (var i = c % 8u; i < params.x_runs; i += 8u) { sum += x_at(at + i); }
      chains[c] = sum;
    }
    workgroupBarrier();
    if (lane < ${rows}u) {
      let c = lane * 8u;
      var total = chains[c];
      for (var i = 1u; i < 8u; i++) { total += chains[c + i]; }
      inverse_rms[lane] = 1.0 / sqrt(total / params.hidden_size + params.eps);
    }
  }
  workgroupBarrier();
}`;
}
