/**
 * qk-norm, rope and KV write of rows whose sequence has several rows in the step: rotates q in place, writes K and V.
 *
 * Its own dispatch, since attention of one row reads keys that the workgroups of other rows write.
 * Shapes: qkv (rows, qkv_stride) f32 · kv pages (see kv_page.ts) · rope (positions, rotary_dim) f32, cosines then sines.
 * Grid: (units of four heads, rows, 1).
 */
import type { HeadDim } from "../fragments/batch.ts";
import { kernel, variants } from "../kernel.ts";
import type { KvType } from "./kv_types.ts";
import { HEAD_PARAMS, headsFragment, unitFragment } from "./rope_heads.ts";

export const ropeKv = variants((kvType: KvType, headDim: HeadDim) =>
  kernel({
    name: `rope_kv ${kvType} head_dim<=${headDim}`,
    reads: { rope: "f32", aux: "f32", batch: "u32" },
    writes: { qkv: "f32", kv: "u32" },
    params: HEAD_PARAMS,
    workgroup: 64,
    code: /* wgsl */ `${unitFragment(kvType, headDim, 1)}${headsFragment(kvType, headDim, 1)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let unit = unit_of(wg.x);
  load_heads(wg.y, unit, lane);
  store_kv(wg.y, unit, lane);
  var i = lane;
  loop {
    let head = i / params.head_dim;
    let d = i % params.head_dim;
    if (head < unit.heads) {
      qkv[wg.y * params.qkv_stride + params.q_at + (unit.first_head + head) * params.q_stride + d] = q4[d][head];
    }
    i += WG;
    continuing { break if i >= unit.heads * params.head_dim; }
  }
}`,
  }),
);
