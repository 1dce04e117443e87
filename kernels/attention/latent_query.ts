/**
 * Queries of latent attention: each head's query, taken through its keys' projection to the length of a latent, and its rotated part.
 *
 *   out[m, h] = [ Σ_n q[m, h, n] · w[h, n, k] for each k,  rope(q[m, h, nope …]) ]
 *
 * so that q · (w c) is taken as (q w) · c, and keys are never made. Shapes: q (rows, q_stride) f32, of each head nope + rotary_dim from
 * q_at on · w heads of nope rows and `latent` columns behind each other, each from a whole block on, in any layout · aux holds tables ·
 * order (latent) u32, the place of each stored column where they are sorted ·
 * rope (positions, rotary_dim) f32, cosines then sines · out f32 (rows, heads, latent + rotary_dim).
 * Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.
 *
 * How: w is read by rows, as stored: a lane decodes four rows × eight columns and adds them to its eight sums, n ascending, for up to
 * ROWS rows at once. Grid: (heads of the shard, rows / ROWS, 1).
 */
import { GROUP_SCALE } from "../formats/group_scales.ts";
import { EIGHT, type LayoutName } from "../formats/layout.ts";
import { layouts } from "../formats/layouts.ts";
import { ROW, ROW_WORDS } from "../fragments/batch.ts";
import { kernel, variants } from "../kernel.ts";
import { TURN } from "./rope_heads.ts";
import { each } from "./tile.ts";

/** Rows that a launch of the kernels by head takes at once. */
export const LATENT_ROWS = [1, 4] as const;
export type LatentRows = (typeof LATENT_ROWS)[number];

/** The kernel, for one row at once or four. */
export const latentQuery = variants((name: LayoutName, rows: LatentRows) => {
  const layout = layouts[name];
  const scaled = layout.scaling !== "none";
  const weight = (column: number, r: number) =>
    scaled ? `fma(g.scale[${r}], e.q${column}[${r}] - g.zero[${r}], g.bias[${r}])` : `e.q${column}[${r}]`;
  const four = (first: number, r: number) => `vec4f(${[0, 1, 2, 3].map((c) => weight(first + c, r)).join(", ")})`;
  return kernel({
    name: `latent_query ${name}${rows === 1 ? "" : " four rows"}`,
    reads: { words: "vec4u", scales: "vec4u", order: "u32", q: "f32", rope: "f32", aux: "f32", batch: "u32" },
    writes: { out: "f32" },
    params: {
      rows: "u32",
      /** Runs of 32 columns a row of w; its groups. */
      row_runs: "u32",
      groups: "u32",
      group_cols: "u32",
      scale_type: "u32",
      param_words: "u32",
      table: "u32",
      /** Of the shard; and blocks of 32 stored rows a head. */
      first_head: "u32",
      head_blocks: "u32",
      nope: "u32",
      latent: "u32",
      rotary_dim: "u32",
      interleaved: "u32",
      q_stride: "u32",
      q_at: "u32",
      out_stride: "u32",
      /** Whether columns have another order than a latent's. */
      sorted: "u32",
    },
    workgroup: 64,
    code: /* wgsl */ `${EIGHT}${layout.prepare ?? ""}${layout.eight}${layout.scaling === "none" ? "" : GROUP_SCALE[layout.scaling]}
${TURN}
/** Where a head's query begins, and what is made of it. */
fn query_at(row: u32, head: u32) -> u32 {
  return row * params.q_stride + params.q_at + head * (params.nope + params.rotary_dim);
}
fn out_at(row: u32, head: u32) -> u32 { return row * params.out_stride + head * (params.latent + params.rotary_dim); }
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
${layout.prepare === undefined ? "" : "  prepare(lane);"}
  let head = params.first_head + wg.x;
  let first = wg.y * ${rows}u;
${each(rows, (m) => `  let from${m} = query_at(min(first + ${m}u, params.rows - 1u), head);`)}
  for (var step = lane; step * 8u < params.latent; step += WG) {
${each(
  rows,
  (m) => `    var low${m} = vec4f();
    var high${m} = vec4f();`,
)}
    for (var n = 0u; n < params.nope; n += 4u) {
      let block = wg.x * params.head_blocks + n / 32u;
      let quad = n % 32u / 4u;
      let e = eight((block * params.row_runs + step / 4u) * ${layout.runWords * 8}u + quad, step % 4u);
${scaled ? "      let g = weight_group(block * params.param_words * 8u + quad, step * 8u / params.group_cols, params.groups, params.scale_type);" : ""}
${each(
  4,
  (r) => `      if (n + ${r}u < params.nope) {
        let a = ${four(0, r)};
        let b = ${four(4, r)};
${each(
  rows,
  (m) => `        let q${m} = vec4f(q[from${m} + n + ${r}u]);
        low${m} = fma(q${m}, a, low${m});
        high${m} = fma(q${m}, b, high${m});`,
)}
      }`,
)}
    }
${each(
  rows,
  (m) => `    if (first + ${m}u < params.rows) {
      let at = out_at(first + ${m}u, head);
      let columns = min(8u, params.latent - 8u * step);
      for (var c = 0u; c < columns; c++) {
        var k = 8u * step + c;
        if (params.sorted == 1u) { k = order[k]; }
        out[at + k] = select(high${m}[c & 3u], low${m}[c & 3u], c < 4u);
      }
    }`,
)}
  }
  let turning = min(${rows}u, params.rows - first) * params.rotary_dim;
  for (var i = lane; i < turning; i += WG) {
    let row = first + i / params.rotary_dim;
    let d = i % params.rotary_dim;
    let turn = turn_of(d, batch[row * ${ROW_WORDS}u + ${ROW.rope}u] * params.rotary_dim);
    let at = query_at(row, head) + params.nope;
    out[out_at(row, head) + params.latent + d] = fma(q[at + d], turn.cos, q[at + turn.other] * turn.sin);
  }
}`,
  });
});
