/**
 * Items by expert: count, prefix sum, sorted list, and tiles of up to TILE_ROWS items that share an expert.
 *
 * Shapes: route and lists as kernels/moe/route.ts. Items of an expert stay in their order, so the list is the same however
 * lanes run. How: one workgroup; a lane owns experts and walks the items. Grid: (1, 1, 1).
 */
import { kernel } from "../kernel.ts";
import { MAX_EXPERTS, TILE_ROWS, TILE_WORDS, TILES_AT } from "./route.ts";

export const expertLists = kernel({
  name: "expert_lists",
  reads: { route: "u32" },
  writes: { lists: "u32" },
  params: {
    items: "u32",
    /** Shared ones included. */
    experts: "u32",
    items_at: "u32",
  },
  workgroup: 256,
  code: /* wgsl */ `
var<workgroup> counts: array<u32, ${MAX_EXPERTS}>;
fn tiles_of(count: u32) -> u32 { return (count + ${TILE_ROWS - 1}u) / ${TILE_ROWS}u; }
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  for (var e = lane; e < params.experts; e += WG) {
    var count = 0u;
    for (var i = 0u; i < params.items; i++) { count += select(0u, 1u, route[i] == e); }
    counts[e] = count;
  }
  workgroupBarrier();
  for (var e = lane; e < params.experts; e += WG) {
    var first = 0u;
    var tile = 0u;
    for (var before = 0u; before < e; before++) {
      first += counts[before];
      tile += tiles_of(counts[before]);
    }
    var at = params.items_at + first;
    for (var i = 0u; i < params.items; i++) {
      if (route[i] == e) {
        lists[at] = i;
        at++;
      }
    }
    for (var done = 0u; done < counts[e]; done += ${TILE_ROWS}u) {
      let record = ${TILES_AT}u + tile * ${TILE_WORDS}u;
      lists[record] = e;
      lists[record + 1u] = params.items_at + first + done;
      lists[record + 2u] = min(counts[e] - done, ${TILE_ROWS}u);
      tile++;
    }
    if (e + 1u == params.experts) { lists[0] = tile; }
  }
}`,
});
