/**
 * Folds the splits of attention, left to right, and finishes the row.
 *
 * Shapes: as attention.ts. One workgroup a query; a lane has whole dimensions. Grid: (heads, rows of the launch, 1).
 */
import { FIXED_SUMS } from "../fragments/activation.ts";
import { KEY_SPLIT, ROW, ROW_WORDS } from "../fragments/batch.ts";
import { kernel } from "../kernel.ts";
import { FINISH, FINISH_PARAMS, MASKED, PARTIAL_AT } from "./finish.ts";

/** The kernel. */
export const attentionReduce = kernel({
  name: "attention_reduce",
  reads: { partials: "f32", qkv: "f32", aux: "f32", batch: "u32" },
  writes: { out: "f32" },
  params: { heads: "u32", value_dim: "u32", qkv_stride: "u32", window: "u32", ...FINISH_PARAMS },
  workgroup: 64,
  code: /* wgsl */ `${FIXED_SUMS}${PARTIAL_AT}${FINISH}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = wg.x;
  let row = params.first_row + wg.y;
  let length = batch[row * ${ROW_WORDS}u + ${ROW.length}u];
  var low = 0u;
  if (params.window < length) { low = length - params.window; }
  let first = low / ${KEY_SPLIT}u;
  let end = (length + ${KEY_SPLIT - 1}u) / ${KEY_SPLIT}u;
  for (var d = lane; d < params.value_dim; d += WG) {
    var o = 0.0;
    var sum = 0.0;
    var row_max = ${MASKED};
    var split = first;
    loop { // ends with its condition, since one driver runs the other kind once more than it counts
      let at = partial_at(row, head, split);
      let part = partials[at + d];
      let part_sum = partials[at + params.value_dim];
      let part_max = partials[at + params.value_dim + 1u];
      let new_max = max(row_max, part_max);
      let keep = exp(row_max - new_max);
      let take = exp(part_max - new_max);
      if (split == first) { // as where there is no other; a row of padding has none
        o = select(o, part, split < end);
        sum = select(sum, part_sum, split < end);
        row_max = select(row_max, part_max, split < end);
      } else {
        o = fma(o, keep, part * take);
        sum = fma(sum, keep, part_sum * take);
        row_max = new_max;
      }
      split++;
      continuing { break if split >= end; }
    }
    write_out(row, head, d, o, sunk(row_max, sum, head));
  }
  storageBarrier();
  if (params.out_sums != NONE && lane < params.value_dim / 32u) { write_sum(row, head, lane); }
  if (head == params.heads - 1u) { write_padding(row, lane); }
}`,
});
