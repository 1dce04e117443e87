/**
 * RMS norm of a row's whole query and whole key, all heads at once, in place.
 *
 *   v[i] = v[i] · w[i] / √(Σ v² / n + eps),   n = heads · head_dim, or kv_heads · head_dim
 *
 * Shapes: qkv (rows, qkv_stride) f32 · aux holds both weights (n) f32. Source: OLMo et al. 2024, "2 OLMo 2 Furious", §3.2.
 *
 * How: one workgroup a row and side. A dispatch of its own, since the norm ties all heads together and attention has a
 * workgroup a KV head; only families that norm so have it. Lane i adds the squares i, i + 64, …; then each lane adds
 * the 64 sums in their order. Grid: (2, rows, 1): queries, keys.
 */
import { kernel } from "../kernel.ts";

const LANES = 64;

/** The kernel. */
export const qkNorm = kernel({
  name: "qk_norm",
  reads: { aux: "f32" },
  writes: { qkv: "f32" },
  params: {
    heads: "u32",
    kv_heads: "u32",
    head_dim: "u32",
    qkv_stride: "u32",
    q_at: "u32",
    q_stride: "u32",
    k_at: "u32",
    k_stride: "u32",
    /** Weights in aux. */
    q_norm: "u32",
    k_norm: "u32",
    eps: "f32",
  },
  workgroup: LANES,
  code: /* wgsl */ `
var<workgroup> chains: array<f32, ${LANES}>;
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let is_key = wg.x == 1u;
  let base = wg.y * params.qkv_stride + select(params.q_at, params.k_at, is_key);
  let stride = select(params.q_stride, params.k_stride, is_key);
  let columns = select(params.heads, params.kv_heads, is_key) * params.head_dim;
  let weights = select(params.q_norm, params.k_norm, is_key);
  var sum = 0.0;
  for (var i = lane; i < columns; i += WG) {
    let v = qkv[base + i / params.head_dim * stride + i % params.head_dim];
    sum = fma(v, v, sum);
  }
  chains[lane] = sum;
  workgroupBarrier();
  var total = chains[0];
  for (var i = 1u; i < WG; i++) { total += chains[i]; }
  let rms = 1.0 / sqrt(total / f32(columns) + params.eps);
  for (var i = lane; i < columns; i += WG) {
    let at = base + i / params.head_dim * stride + i % params.head_dim;
    qkv[at] = qkv[at] * rms * aux[weights + i];
  }
}`,
});
