/**
 * Folds the splits of attention, left to right, as the kernel that takes all keys does by itself.
 *
 * Shapes: as attention.ts. Grid: (units, rows, 1).
 */
import { type HeadDim, KEY_SPLIT, ROW } from "../fragments/batch.ts";
import { kernel, variants } from "../kernel.ts";
import { FINISH_PARAMS, finishFragment, MASKED } from "./finish.ts";
import { HEAD_PARAMS, unitFragment } from "./rope_heads.ts";

export const attentionReduce = variants((headDim: HeadDim) =>
  kernel({
    name: `attention_reduce head_dim<=${headDim}`,
    reads: { partials: "vec4f", qkv: "f32", aux: "f32", batch: "u32" },
    writes: { out: "f32" },
    params: { ...HEAD_PARAMS, ...FINISH_PARAMS },
    workgroup: 64,
    code: /* wgsl */ `${unitFragment("f32", headDim)}${finishFragment(headDim)}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.y;
  let length = row_field(row, ${ROW.length}u);
  for (var i = lane; i <= params.value_dim; i += WG) { total[i] = vec4f(); }
  var total_max = vec4f(${MASKED});
  for (var split = 0u; split < (length + ${KEY_SPLIT - 1}u) / ${KEY_SPLIT}u; split++) {
    let at = ((row * params.units + wg.x) * params.splits + split) * (params.value_dim + 2u);
    for (var i = lane; i <= params.value_dim; i += WG) { part[i] = partials[at + i]; }
    total_max = fold_split(total_max, partials[at + params.value_dim + 1u], lane);
  }
  finish(row, unit_of(wg.x), wg.x, total_max, lane);
}`,
  }),
);
