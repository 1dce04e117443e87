/** What changes the source of attention's kernels, and a helper to write WGSL out a number of times. */
import type { KvType } from "./kv_types.ts";
import type { Quads } from "./rope_heads.ts";

/**
 * How queries and exponentials reach the lanes: from memory at addresses that all share, or from the lane of a subgroup of eight, or four, that has them.
 */
export const QUERIES_FROM = ["storage", "broadcast", "broadcast4"] as const;
export type QueriesFrom = (typeof QUERIES_FROM)[number];
/** Those by broadcast. */
export type BroadcastQueries = Exclude<QueriesFrom, "storage">;

/** Lanes that give queries and exponentials to each other. */
export type Subgroups = 0 | 4 | 8;
export const subgroupsOf = (from: QueriesFrom): Subgroups =>
  (({ storage: 0, broadcast: 8, broadcast4: 4 }) as const)[from];

/** Whether a workgroup is one subgroup (attentionSubgroup.ts); latents are too long for its lanes. */
export const isOneSubgroup = ({ subgroups, latent }: Pick<Tile, "subgroups" | "latent">): boolean =>
  subgroups > 0 && latent !== true;
/** Lanes of a workgroup. */
export const lanesOf = (tile: Pick<Tile, "subgroups" | "latent">): number =>
  isOneSubgroup(tile) ? tile.subgroups : 64;

/** A variant of the kernel. */
export interface Tile {
  readonly kvType: KvType;
  /** Room for a head. */
  readonly headDim: number;
  /** Vectors of four queries. */
  readonly quads: Quads;
  /** Lanes of the subgroups in which q and p come by broadcast; 0: they come from memory. */
  readonly subgroups: Subgroups;
  /** Whether the queries are of several rows, which may see different keys. */
  readonly rows: boolean;
  /** Whether a value is the beginning of its key. */
  readonly latent?: boolean;
}

/** The text for 0 … count − 1, a line each. */
export const each = (count: number, text: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => text(index)).join("\n");
