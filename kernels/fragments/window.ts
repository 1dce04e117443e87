/**
 * Windows on x: a uniform buffer of 64 KiB, in which matmuls of software adapters read the rows of x that a launch takes.
 *
 * When they win: where a load of a lane is some instructions, and a bound that is checked by a branch some more. On lavapipe a value read from a storage
 * buffer costs a lane ten to fourteen instructions and one from a uniform buffer three: with eight rows at once, x read from storage was half
 * of a matmul. A window is what every WebGPU device grants a binding, so that long rows leave room for fewer at once, and many rows take
 * several launches. The order of summation does not change. Sums and squares of x are behind its rows, and still come from storage.
 */
import type { MatmulRows, XFrom } from "./matmul.ts";

const WINDOW_QUADS = 4096;
/** Bytes of a window: what is bound must have as many from where it begins. */
export const WINDOW_BYTES = 16 * WINDOW_QUADS;
/** WebGPU's default for where a uniform binding may begin. */
const ALIGN = 256;

/** What a kernel declares whose x comes through a window, and what the others declare of it. */
export const windowSpec = (from: XFrom) =>
  from === "broadcast"
    ? ({ windows: { x_window: `array<vec4f, ${WINDOW_QUADS}>` }, params: { first_row: "u32" } } as const)
    : ({ windows: { x_window: null }, params: { first_row: null } } as const);

/** WGSL of the first row that a workgroup takes. */
export const firstRow = (from: XFrom, rows: MatmulRows): string =>
  from === "broadcast" ? `params.first_row + wg.y * ${rows}u` : `wg.y * ${rows}u`;

/** Rows of x, and f32s of a row. */
export interface Rows {
  readonly rows: number;
  readonly stride: number;
}

/** Rows of a launch, a multiple of those that it takes at once; 0 where no window has room for them. */
export function windowRows({ rows, stride }: Rows, atOnce: number): number {
  const rowBytes = 4 * stride;
  const most = Math.floor(WINDOW_BYTES / rowBytes / atOnce) * atOnce;
  if (most >= rows) return rows;
  // The next window begins behind this one, where a binding may: a row is a multiple of 128 bytes.
  const step = (rowBytes * atOnce) % ALIGN === 0 ? atOnce : 2 * atOnce;
  return Math.floor(most / step) * step;
}
