/**
 * Windows on x: a uniform buffer of 64 KiB, in which matmuls of software adapters read the rows of x that a launch takes.
 *
 * When they win: where a load of a lane is some instructions, and a bound that is checked by a branch some more. On lavapipe a value read from a storage
 * buffer costs a lane ten to fourteen instructions and one from a uniform buffer three: with eight rows at once, x read from storage was half
 * of a matmul. A window is what every WebGPU device grants a binding, so that long rows leave room for fewer at once, and many rows take
 * several launches. The order of summation does not change. Sums and squares of x are behind its rows, and still come from storage.
 */
import type { SlotRange } from "../../device/arena.ts";
import type { Bound, BufferRange, Grid, Recorder } from "../../device/program.ts";
import type { Kernel } from "../kernel.ts";
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

/** As `kernel.launch`, with a launch a window where the kernel has one. The grid's y is all rows by those taken at once. */
export function launchRows<B extends string, P extends string>(
  kernel: Kernel<B | "x" | "x_window", P | "first_row">,
  recorder: Recorder,
  launch: {
    readonly buffers: Readonly<Record<Exclude<B, "x_window"> | "x", Bound>>;
    readonly params: Readonly<Record<Exclude<P, "first_row">, number>>;
    readonly grid: Grid;
  },
  { rows, stride }: Rows,
  label?: string,
): void {
  const { buffers, params, grid } = launch;
  const [x, y, z] = grid;
  const atOnce = rows / y;
  const windowed = kernel.compiled.bindings.lastIndexOf("uniform") > 0;
  const each = windowed ? windowRows({ rows, stride }, atOnce) : rows;
  if (each === 0)
    throw new RangeError(`${kernel.name}: ${atOnce} rows of ${stride} columns, expected less than a window`);
  for (let first = 0; first < rows; first += each) {
    const tiles = Math.min(each, rows - first) / atOnce;
    const x_window = part(buffers.x, 4 * first * stride);
    const all = { ...buffers, x_window } as Readonly<Record<B | "x" | "x_window", Bound>>;
    const allParams = { ...params, first_row: first } as Readonly<Record<P | "first_row", number>>;
    kernel.launch(recorder, { buffers: all, params: allParams, grid: [x, tiles, z] }, label);
  }
}

/** A window's bytes from an offset of what is bound whole. */
function part(bound: Bound, offset: number): BufferRange | SlotRange {
  const size = WINDOW_BYTES;
  if ("slot" in bound) return { ...bound, offset: bound.offset + offset, size };
  if ("buffer" in bound) return { buffer: bound.buffer, offset: bound.offset + offset, size };
  return "bytes" in bound ? { slot: bound, offset, size } : { buffer: bound, offset, size };
}
