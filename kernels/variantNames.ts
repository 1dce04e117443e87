/** Ways of computing that ops choose between, by the names under which an adapter switches them off (`off` of device/gpu.ts). */
import type { MatmulRows } from "./fragments/matmul.ts";

/** Matmuls that take several rows of x at once; without: fewer. */
export const rowsVariant = (rows: MatmulRows): string => `M=${rows}`;

/** Lanes that give values of x, and of queries, to each other; without: each reads its own. */
export const BROADCAST = "broadcast";

/** Matmuls of wide workgroups, whose octets may divide columns; without: workgroups of 8 lanes, each with whole rows. */
export const WIDE = "wide";

/** Decoding steps that follow each other without the CPU (advance.ts); without: it lays each of them out. */
export const FREE_RUN = "free run";
