/**
 * The inner product over narrow activations: the sibling of matmul.ts for layouts of integer codes, chosen by `--precision` alone.
 *
 *   bytes    d_g = Σ over runs of scale_x · f32(Σ q_w · q_x)       products and their sum in integers, four a `dot4I8Packed`: exact
 *   halves   d_g = Σ over runs of scale_x · Σ over steps of 8 of (Σ of 4 even + Σ of 4 odd pairs)    products in f16, at most 4 of them summed there
 *   acc      = Σ over groups of ( scale · d_g + (bias + scale · centre) · Σ x ),   in the order of the columns, in f32
 *
 * Codes are centred where that helps: bytes of 8 bits to have a sign, halves to be half as large and so to lose half as much; 8, 16, … are
 * exact in f16. Nothing is summed across lanes, as in matmul.ts. Workgroups are wide: these are for GPUs.
 *
 * When they win: where instructions and not memory are the limit. On navi31 (RDNA3, by its compiler) the loop takes, for one row of x, 0.75 vector
 * instructions a weight of affine4 with bytes and 2.06 with halves, 2.50 in f32; of affine8 0.63, 2.13 and 2.13. GPUs without dot products of
 * bytes (vega10: 3.38) and software adapters, which have no f16 units, lose. Not measured on a GPU.
 */
import { bytesOf } from "../formats/bit_planes.ts";
import { EARLY_SCALE, GROUP_SCALE } from "../formats/group_scales.ts";
import type { Layout } from "../formats/layout.ts";
import { FIXED_SUMS } from "./activation.ts";
import {
  type DotOptions,
  dotFragment,
  EARLY_FIRST,
  EARLY_NEXT,
  each,
  isShared,
  type MatmulRows,
  type XFrom,
} from "./matmul.ts";
import { EIGHT_WORDS, type Narrow, type NarrowShape } from "./narrow_activation.ts";
import { wideRowsFragment } from "./wide_rows.ts";

/** Whether x is narrow. */
const isNarrow = (from: XFrom): from is Narrow => from === "bytes" || from === "halves";

/** Whether matmuls of a layout can take a narrow activation: its numbers are integer codes. Others stay in f32. */
export const takesNarrow = ({ scaling }: Pick<Layout, "scaling">): boolean => scaling === "affine";

/** What a kernel declares of x: the WGSL type of its elements, eight values where it is narrow, and what its code needs of a device. */
export function xSpec(from: XFrom) {
  const element = from === "bytes" ? "vec2u" : from === "halves" ? "vec4u" : "vec4f";
  return { element, needs: { subgroups: isShared(from), f16: from === "halves" } } as const;
}

/** The params of `dotParams` that differ where x is narrow. */
export const narrowParams = ({ runs, sums }: NarrowShape) =>
  ({ x_stride: runs * 4, x_runs: runs, x_sums: sums }) as const;

/** As `dotFragment`, for every way of x. */
export function anyDotFragment(
  layout: Layout,
  rows: MatmulRows,
  options: DotOptions & { readonly from: XFrom },
): string {
  const { from } = options;
  if (isNarrow(from)) return narrowDotFragment(layout, rows, from);
  if (from === "wide" && rows > 1) return wideRowsFragment(layout, rows, options.ownSums);
  return dotFragment(layout, rows, options);
}

/** What is taken from a code: bytes must fit −128 … 127, and halves do better around zero. */
function centreOf({ runWords: bits }: Layout, narrow: Narrow): number {
  return narrow === "halves" || bits === 8 ? 2 ** (bits - 1) : 0;
}

/** Declares `dot_rows` as `dotFragment` does where it is wide. Groups of these layouts are whole runs. */
function narrowDotFragment(layout: Layout, rows: MatmulRows, narrow: Narrow): string {
  if (!takesNarrow(layout))
    throw new RangeError(`${layout.name}: has no integer codes, expected a layout that takes ${narrow}`);
  const centre = centreOf(layout, narrow);
  const part = narrow === "bytes" ? "vec4i" : "vec4f";
  return /* wgsl */ `${bytesOf(layout.planes)}${GROUP_SCALE.affine}${EARLY_SCALE}${FIXED_SUMS}${narrow === "halves" ? pairFunctions(layout) : ""}
var<workgroup> dots: array<vec4f, ${rows} * WG>;
${xAt(narrow)}
fn dot_rows(at: Octet, first: u32, lane: u32) {
${each(rows, (m) => `  var acc${m} = vec4f();`)}
  var w = (at.block * params.row_runs + at.run) * ${layout.runWords * 8}u + at.quad;
  var k = first * params.x_stride + 4u * at.run;
  let s = at.block * params.param_words * 8u + at.quad;
  var run = first * params.x_runs + at.run;
${EARLY_FIRST}
  for (var g = at.group; g < at.end; g++) {
${each(rows, (m) => `    var d${m} = vec4f(); var run_sum${m} = 0.0;`)}
    for (var r = 0u; r < params.group_runs; r++) {
${each(rows, (m) => `      var part${m} = ${part}();`)}
      for (var step = 0u; step < params.run_steps; step++) {
${narrow === "bytes" ? byteStep(rows, layout.runWords === 8) : halfStep(layout, rows)}
        k++;
      }
      w += ${layout.runWords * 8}u;
${each(
  rows,
  (m) => `      {
        let pair = params.x_sums + 2u * (run + ${m}u * params.x_runs);
        d${m} = fma(vec4f(x_at(pair)), vec4f(part${m}), d${m});
        run_sum${m} += x_at(pair + 1u);
      }`,
)}
      run++;
    }
    let gs = early_scale(word, s, g, params.groups, params.scale_type);${EARLY_NEXT}
    let bias = ${centre === 0 ? "gs.bias" : `fma(gs.scale, vec4f(${centre}.0), gs.bias)`};
${each(rows, (m) => `    acc${m} = fma(bias, vec4f(run_sum${m}), fma(gs.scale, d${m}, acc${m}));`)}
  }
${each(rows, (m) => `  dots[${m}u * WG + lane] = acc${m};`)}
}`;
}

/** `x_at(i)`: the f32 in word i of x. */
function xAt(narrow: Narrow): string {
  const words = EIGHT_WORDS[narrow];
  return `fn x_at(i: u32) -> f32 { return bitcast<f32>(x[i / ${words}u][i % ${words}u]); }`;
}

const ROWS = ["x", "y", "z", "w"] as const;

/** Eight columns of four rows: two dot products of four bytes a row. */
function byteStep(rows: number, signed: boolean): string {
  const turned = (half: string) => (signed ? `c.${half} ^ vec4u(0x80808080u)` : `c.${half}`);
  const dots = (half: string, word: string) => ROWS.map((row) => `dot4I8Packed(${half}.${row}, v.${word})`).join(", ");
  return /* wgsl */ `        let c = codes(w, step);
        let low = ${turned("low")};
        let high = ${turned("high")};
${each(
  rows,
  (m) => `        {
          let v = x[k + ${m}u * params.x_stride];
          part${m} += vec4i(${dots("low", "x")});
          part${m} += vec4i(${dots("high", "y")});
        }`,
)}`;
}

/** Whether a word holds eight codes of 4 bits, which halves are made of without going through bytes. */
const fourBits = ({ planes }: Layout): boolean => planes.length === 1 && planes[0] === 4;

/** Two codes as halves around zero: 1024 + q is q in the lowest bits of 0x6400, and 1024 + 16 q is q in the next four. */
function pairFunctions(layout: Layout): string {
  const centre = centreOf(layout, "halves");
  const pair = (name: string, mask: string, then: (halves: string) => string) =>
    `fn ${name}(bytes: u32) -> vec2h { return ${then(`bitcast<vec2h>((bytes & ${mask}) | 0x64006400u)`)}; }`;
  const less = (halves: string) => `${halves} - vec2h(${1024 + centre}.0h)`;
  if (!fourBits(layout)) return pair("pair", "0x00ff00ffu", less);
  return `${pair("low_pair", "0x000f000fu", less)}
${pair("high_pair", "0x00f000f0u", (halves) => `fma(${halves}, vec2h(0.0625h), vec2h(-${64 + centre}.0h))`)}`;
}

/** The codes of a step as pairs, columns 0 and 2, 1 and 3, 4 and 6, 5 and 7 of each row. */
function pairs(layout: Layout): string[] {
  if (fourBits(layout)) {
    return [
      "let even = words[w + step * 8u];",
      "let odd = even >> vec4u(8u);",
      ...ROWS.flatMap((row) => [
        `let ${row}0 = low_pair(even.${row}); let ${row}1 = low_pair(odd.${row});`,
        `let ${row}2 = high_pair(even.${row}); let ${row}3 = high_pair(odd.${row});`,
      ]),
    ];
  }
  return [
    "let c = codes(w, step);",
    ...ROWS.flatMap((row) => [
      `let ${row}0 = pair(c.low.${row}); let ${row}1 = pair(c.low.${row} >> 8u);`,
      `let ${row}2 = pair(c.high.${row}); let ${row}3 = pair(c.high.${row} >> 8u);`,
    ]),
  ];
}

/** Eight columns of four rows: four products of pairs, one after the other, then both halves to f32. */
function halfStep(layout: Layout, rows: number): string {
  const sum = (row: string) => `let h${row} = fma(${row}3, v3, fma(${row}2, v2, fma(${row}1, v1, ${row}0 * v0)));`;
  const half = (part: "x" | "y") => ROWS.map((row) => `f32(h${row}.${part})`).join(", ");
  return /* wgsl */ `        ${pairs(layout).join("\n        ")}
${each(
  rows,
  (m) => `        {
          let v = x[k + ${m}u * params.x_stride];
          let v0 = bitcast<vec2h>(v.x); let v1 = bitcast<vec2h>(v.y); let v2 = bitcast<vec2h>(v.z); let v3 = bitcast<vec2h>(v.w);
          ${ROWS.map(sum).join("\n          ")}
          part${m} += vec4f(${half("x")});
          part${m} += vec4f(${half("y")});
        }`,
)}`;
}
