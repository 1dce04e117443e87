/**
 * What the router leaves a token, and the lists that a prompt's matmuls walk.
 *
 * A token has `slots`: the experts chosen for it, highest weight first, then the shared ones. Slot s of row r is item
 * r · slots + s. The route is one u32 buffer: the expert of each item, then its weight (bits of an f32), then 1 / rms of
 * each row. The lists are another: how many tiles there are, a record a tile, and the items by expert.
 */

/** Words of a tile's record: expert, first entry of its items in the list, how many. */
export const TILE_WORDS = 4;
/** Where the tiles' records begin. */
export const TILES_AT = 4;
/** Rows of x that a tile takes at once: few tokens of a prompt's step meet in one expert. */
export const TILE_ROWS = 4;
/** Most slots a token. */
export const MAX_SLOTS = 64;
/** Most experts, the router's other rows included. */
export const MAX_EXPERTS = 1024;

/** Offsets, in words, of the parts of a route. */
export interface RouteShape {
  readonly rows: number;
  readonly slots: number;
  readonly items: number;
  readonly weights: number;
  readonly inverses: number;
  readonly words: number;
}

/** The shape of a route. */
export function routeShape(rows: number, slots: number): RouteShape {
  const items = rows * slots;
  return { rows, slots, items, weights: items, inverses: 2 * items, words: 2 * items + rows };
}

/** Offsets, in words, of the parts of the lists of `items` items over `experts`. */
export interface ListShape {
  /** Most tiles that there can be. */
  readonly tiles: number;
  readonly itemsAt: number;
  readonly words: number;
}

/** The shape of the lists. An expert's last tile may be short, so there are at most items / TILE_ROWS and one an expert. */
export function listShape(items: number, experts: number): ListShape {
  const tiles = Math.floor(items / TILE_ROWS) + Math.min(items, experts);
  const itemsAt = TILES_AT + tiles * TILE_WORDS;
  return { tiles, itemsAt, words: itemsAt + items };
}
/** Most groups of experts. */
export const MAX_GROUPS = 64;
