/**
 * What a token leaves for latent attention: its latent, normed, and its one rotated key, in the page; and its low-rank query.
 *
 *   c[i] = v[i] · w[i] / √(Σ v² / latent + eps),   k = rope(u)        into the page as one vector [c, k]
 *   z[i] = w'[i] · a[i],   with sums of z and of a² by runs of 32: the factor of this norm goes behind the next matmul's sum
 *
 * Shapes: x (rows, x_stride) f32 with v (latent) and u (rotary_dim) from kv_at on, and a (rank), zero behind up to a whole run, from q_at
 * on · aux holds w (latent) and w' (rank) f32, zero behind · rope (positions, rotary_dim) f32, cosines then sines · z activation (rows, rank).
 * Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.
 *
 * How: one workgroup a row and side. Lane i adds the squares i, i + 64, …; then each lane adds the 64 sums in their order; a lane takes
 * whole runs of the query. Grid: (2 where queries are of low rank, else 1; rows; 1).
 */
import { FIXED_SUMS } from "../fragments/activation.ts";
import { ROW, ROW_WORDS } from "../fragments/batch.ts";
import { kernel, variants } from "../kernel.ts";
import { kvFragment } from "./kv_page.ts";
import { kvNumbers, numbersOf, type PlainKvType } from "./kv_types.ts";
import { TURN } from "./rope_heads.ts";

const LANES = 64;

export const latentKv = variants((kvType: PlainKvType) =>
  kernel({
    name: `latent_kv ${kvType}`,
    reads: { x: "f32", rope: "f32", aux: "f32", batch: "u32" },
    writes: { kv: "u32", z: "f32" },
    params: {
      x_stride: "u32",
      kv_at: "u32",
      latent: "u32",
      rotary_dim: "u32",
      interleaved: "u32",
      /** w in aux. */
      kv_norm: "u32",
      eps: "f32",
      /** u32 words of a token in a page, and of a page. */
      head_words: "u32",
      page_words: "u32",
      /** Where a begins in x, and w' in aux. */
      q_at: "u32",
      q_norm: "u32",
      /** Of z, in f32s; runs a row; where its sums and squares begin. */
      z_stride: "u32",
      z_runs: "u32",
      z_sums: "u32",
      z_squares: "u32",
      zero: "u32",
    },
    workgroup: LANES,
    code: /* wgsl */ `${FIXED_SUMS}${kvFragment(kvType, "latent")}
${TURN}
var<workgroup> chains: array<f32, ${LANES}>;
/** Dimension d of the token's vector. */
fn entry(base: u32, table: u32, d: u32, inverse: f32) -> f32 {
  if (d < params.latent) { return (x[base + d] * inverse) * aux[params.kv_norm + d]; }
  let turn = turn_of(d - params.latent, table);
  return fma(x[base + d], turn.cos, x[base + params.latent + turn.other] * turn.sin);
}
fn store_token(row: u32, lane: u32) {
  let base = row * params.x_stride + params.kv_at;
  var squares = 0.0;
  for (var i = lane; i < params.latent; i += WG) {
    let v = x[base + i];
    squares = fma(v, v, squares);
  }
  chains[lane] = squares;
  workgroupBarrier();
  var total = chains[0];
  for (var i = 1u; i < WG; i++) { total += chains[i]; }
  let inverse = 1.0 / sqrt(total / f32(params.latent) + params.eps);
  let slot = batch[row * ${ROW_WORDS}u + ${ROW.slot}u];
  if (slot == NONE) { return; }
  let table = batch[row * ${ROW_WORDS}u + ${ROW.rope}u] * params.rotary_dim;
  for (var w = lane; w < params.head_words; w += WG) {
    let d = w * ${kvNumbers[kvType].dims}u;
    let word = kv_word(${numbersOf(kvType, (i) => `entry(base, table, d + ${i}u, inverse)`)});
    kv[k_at(slot / PAGE, 0u, w, slot % PAGE)] = word;
  }
}
fn weigh_query(row: u32, lane: u32) {
  for (var run = lane; run < params.z_runs; run += WG) {
    var sum = vec4f();
    var square = vec4f();
    for (var i = 0u; i < 32u; i += 4u) {
      let k = run * 32u + i;
      let at = row * params.x_stride + params.q_at + k;
      let w = params.q_norm + k;
      let v = vec4f(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
      let u = vec4f(aux[w], aux[w + 1u], aux[w + 2u], aux[w + 3u]) * v;
      for (var c = 0u; c < 4u; c++) { z[row * params.z_stride + k + c] = u[c]; }
      if (i == 0u) {
        sum = u;
        square = v * v;
      } else {
        sum += u;
        square = fma(v, v, square);
      }
    }
    z[params.z_sums + row * params.z_runs + run] = sum4(sum);
    z[params.z_squares + row * params.z_runs + run] = sum4(square);
  }
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (wg.x == 0u) { store_token(wg.y, lane); } else { weigh_query(wg.y, lane); }
}`,
  }),
);
