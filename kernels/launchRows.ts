/** Launches a matmul over all rows of x: at once, or by windows where x comes through one (fragments/window.ts). */
import type { SlotRange } from "../device/arena.ts";
import type { Bound, BufferRange, Grid, Recorder } from "../device/program.ts";
import { type Rows, WINDOW_BYTES, windowRows } from "./fragments/window.ts";
import type { Kernel } from "./kernel.ts";

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
