/** What changes the source of attention's kernels, and a helper to write WGSL out a number of times. */
import type { KvType } from "./kv_types.ts";
import type { Quads } from "./rope_heads.ts";

/**
 * How queries and exponentials reach the lanes: from memory at addresses that all share, or one lane reads for eight and the subgroup broadcasts.
 */
export const QUERIES_FROM = ["storage", "broadcast"] as const;
export type QueriesFrom = (typeof QUERIES_FROM)[number];

/** A variant of the kernel. */
export interface Tile {
  readonly kvType: KvType;
  /** Room for a head in workgroup memory. */
  readonly headDim: number;
  /** Vectors of four queries. */
  readonly quads: Quads;
  /** Whether q and p come by broadcast. Needs subgroups of 8 lanes. */
  readonly subgroups: boolean;
  /** Whether the queries are of several rows, which may see different keys. */
  readonly rows: boolean;
  /** Whether a value is the beginning of its key. */
  readonly latent?: boolean;
}

/** The text for 0 … count − 1, a line each. */
export const each = (count: number, text: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => text(index)).join("\n");
