/** Tensors of a file as rows: for JSON with names as stored, for people with names that are safe to print. */
import { bytes } from "../device/buffers.ts";
import { escapeName } from "../models/weights/escape.ts";
import { elementCount, type TensorInfo } from "../models/weights/tensorInfo.ts";
import { table } from "./output.ts";

/** One tensor in `inspect --json`. */
export interface TensorRow {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** One row a tensor, names made safe for a terminal. */
export function tensorRows(tensors: Iterable<TensorInfo>): TensorRow[] {
  return Array.from(tensors, ({ name, dtype, shape, begin, end }) => ({ name, dtype, shape, bytes: end - begin }));
}

/** A row a tensor, and the sums. */
export function tensorTable(tensors: readonly TensorInfo[]): string {
  const rows = tensors.map(({ name, dtype, shape, begin, end }) => [
    escapeName(name),
    dtype,
    shape.length > 8 ? `[${shape.slice(0, 8).join(", ")}, … of ${shape.length}]` : `[${shape.join(", ")}]`,
    bytes(end - begin),
  ]);
  const total = tensors.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const elements = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const sums = `${tensors.length} tensors, ${elements} elements, ${bytes(total)}\n`;
  return rows.length === 0 ? sums : table(["tensor", "dtype", "shape", ">size"], rows) + sums;
}
