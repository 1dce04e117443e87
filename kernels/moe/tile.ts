/** Items that share an expert, and the x rows they take: one item a workgroup, or a tile of the lists. */
import type { MatmulRows } from "../fragments/matmul.ts";
import { TILE_ROWS, TILE_WORDS, TILES_AT } from "./route.ts";

/** Params of experts that lie behind each other in one shard. */
export const EXPERT_PARAMS = {
  /** Experts of this shard; blocks of 32 stored rows an expert. */
  first_expert: "u32",
  end_expert: "u32",
  expert_blocks: "u32",
  /** Of aux, or NONE. */
  bias: "u32",
} as const;

/**
 * Declares `tile_at(y)`, `mine(expert)`, `bias_of(expert, quad)` and `take_items(tile, lane)`, which fills `items` and dot_rows'
 * `x_rows` and is behind a barrier; a short tile's last item fills it up. `row` is the x row of `item`, as WGSL.
 */
export function tileFragment(tiled: boolean, row: string): { readonly rows: MatmulRows; readonly code: string } {
  const rows = tiled ? TILE_ROWS : 1;
  const code = /* wgsl */ `
var<workgroup> items: array<u32, ${rows}>;
/** \`first\` is an entry of the lists, or the item itself. */
struct Tile { expert: u32, first: u32, count: u32 }
fn tile_at(y: u32) -> Tile {
${
  tiled
    ? `  if (y >= lists[0]) { return Tile(NONE, 0u, 0u); }
  let at = ${TILES_AT}u + y * ${TILE_WORDS}u;
  return Tile(lists[at], lists[at + 1u], lists[at + 2u]);`
    : "  return Tile(route[y], y, 1u);"
}
}
fn mine(expert: u32) -> bool { return expert >= params.first_expert && expert < params.end_expert; }
fn take_items(tile: Tile, lane: u32) {
  if (lane < ${rows}u) {
    let item = ${tiled ? "lists[tile.first + min(lane, tile.count - 1u)]" : "tile.first"};
    items[lane] = item;
    x_rows[lane] = ${row};
  }
  workgroupBarrier();
}
${EXPERT_BIAS}`;
  return { rows, code };
}

/** `bias_of(expert, quad)`: four biases, or zeros. */
export const EXPERT_BIAS = /* wgsl */ `
fn bias_of(expert: u32, quad: u32) -> vec4f {
  if (params.bias == NONE) { return vec4f(); }
  let at = params.bias + 4u * (expert * params.expert_blocks * 8u + quad);
  return vec4f(aux[at], aux[at + 1u], aux[at + 2u], aux[at + 3u]);
}`;
