/**
 * Attention's inner part on software drivers: a workgroup is one subgroup, of four lanes or eight, and a chunk a block (subgroupScores.ts,
 * subgroupValues.ts).
 *
 * lavapipe keeps what a lane has in memory, not in registers, where a barrier lies before its use, and then a load is twice as long. So
 * nothing waits until all blocks are added up. SwiftShader runs both sides of a branch, masked, and the body of a loop once more than it counts,
 * unless its end decides. So loops end with their condition, and few things are behind one. A head that is shorter than its room pays p · V for all of it.
 *
 * When it wins: on lavapipe a layer of SmolLM2-135M behind 4,096 keys takes 2.1 ms, and 3.5 by attentionCode.ts with broadcasts in subgroups; 64 rows of a
 * prompt 15 ms behind 448, and 21; on SwiftShader a row behind 1,024 takes 0.2 to 0.25 of that by the other text.
 */
import { closing, declarations, lengthsOf, opening, SPAN } from "./attentionCode.ts";
import { MASKED } from "./finish.ts";
import { kvNumbers } from "./kv_types.ts";
import { heldQueries, subgroupScoresFragment } from "./subgroupScores.ts";
import { dimsOf, subgroupValuesFragment } from "./subgroupValues.ts";
import { each, type Tile } from "./tile.ts";

/** The whole kernel, behind `rope_kv`. */
export function attentionSubgroup(tile: Tile): string {
  const { quads, rows } = tile;
  const dims = dimsOf(tile);
  return /* wgsl */ `${declarations(tile)}
${rows ? SPAN : ""}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(subgroup_invocation_id) sub: u32) {
${opening(tile)}
${rows ? lengthsOf(quads) : ""}
${each(quads, (q) => queryAt(q))}
${heldQueries(tile)}
  let begin = max(low, split * SPLIT);
  let end = min(last, (split + 1u) * SPLIT);
  /** Where the lane's part of a value begins, and its dimensions. */
  let value_word = sub * ${dims / kvNumbers[tile.kvType].dims}u;
${each(quads, (q) => `  var fold_max${q} = vec4f(${MASKED});\n  var fold_sum${q} = vec4f();`)}
${subgroupValuesFragment.declare(tile)}
  var block = begin & ~(BLOCK - 1u);
  loop {
${subgroupScoresFragment(tile)}
${each(
  quads,
  (q) => `    let new_max${q} = max(fold_max${q}, m${q});
    let keep${q} = exp(fold_max${q} - new_max${q});
    let take${q} = exp(m${q} - new_max${q});
    fold_max${q} = new_max${q};
    fold_sum${q} = fma(fold_sum${q}, keep${q}, sum${q} * take${q});`,
)}
${subgroupValuesFragment.fold(tile)}
    block += BLOCK;
    continuing { break if block >= end; }
  }
${finish(tile)}
}`;
}

/** Declares where the lane's dimension of each query begins; what is no query is the first one. */
function queryAt(q: number): string {
  const queries = `vec4u(${[0, 1, 2, 3].map((c) => 4 * q + c).join(", ")})`;
  return `  let query${q} = select(vec4u(), ${queries}, ${queries} < vec4u(queries));
  let query_at${q} = (vec4u(row) + query${q} / unit.heads) * params.qkv_stride + vec4u(params.q_at + sub)
    + (vec4u(unit.first_head) + query${q} % unit.heads) * params.q_stride;`;
}

/** Writes out what the lanes have. */
function finish(tile: Tile): string {
  const { quads } = tile;
  const dims = dimsOf(tile);
  const list = (name: string) => Array.from({ length: quads }, (_, q) => `${name}${q}`).join(", ");
  return /* wgsl */ `
  var sums = array<vec4f, ${quads}>(${list("fold_sum")});
  var maxima = array<vec4f, ${quads}>(${list("fold_max")});
  var query = 0u;
  var query_row = row;
  var head = unit.first_head;
  loop {
    let sum = sums[query >> 2u][query & 3u];
    let row_max = maxima[query >> 2u][query & 3u];
    let by = sunk(row_max, sum, head);
    let at = partial_at(query_row, head, split);
    var i = 0u;
    loop {
      let d = sub * ${dims}u + i;
      let o = parts[i * QUADS + (query >> 2u)][query & 3u];
      if (d < params.value_dim) {
        if (params.splits == 0u) { write_out(query_row, head, d, o, by); } else { partials[at + d] = o; }
      }
      i++;
      continuing { break if i == ${dims}u; }
    }
    if (params.splits > 0u && sub == 0u) {
      partials[at + params.value_dim] = sum;
      partials[at + params.value_dim + 1u] = row_max;
    }
    query++;
    head++;
    if (head == unit.first_head + unit.heads) {
      head = unit.first_head;
      query_row++;
    }
    continuing { break if query >= queries; }
  }
  if (params.splits > 0u) { return; }
  storageBarrier();
${closing("sub")}`;
}
