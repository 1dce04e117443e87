/** Act-order: which group each column of a matrix belongs to, and the order of columns in which groups are whole. */
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";

/**
 * The columns sorted by their group, or undefined where they are already. `bytes` are I32s, a group for each column.
 * Throws ModelFormatError where a group is none of `count`, UnsupportedModelError where groups have other sizes than `stored`.
 */
export function columnOrder(
  tensor: string,
  bytes: Uint8Array,
  { cols, stored, count }: { readonly cols: number; readonly stored: number; readonly count: number },
): Uint32Array<ArrayBuffer> | undefined {
  const groups = columnGroups(tensor, bytes, { cols, count });
  if (groups.every((group, column) => group === Math.floor(column / stored))) return undefined;
  const order = Uint32Array.from(groups.keys()).sort((a, b) => (groups[a] ?? 0) - (groups[b] ?? 0) || a - b);
  const odd = order.findIndex((column, place) => groups[column] !== Math.floor(place / stored));
  if (odd >= 0) {
    const size = groups.filter((group) => group === groups[order[odd] ?? 0]).length;
    throw new UnsupportedModelError(
      `${tensor}: group ${groups[order[odd] ?? 0]} has ${size} columns, expected ${stored} in each`,
    );
  }
  return order;
}

/** The group of each column, checked: `bytes` are I32s. Throws ModelFormatError as `columnOrder` does. */
export function columnGroups(
  tensor: string,
  bytes: Uint8Array,
  { cols, count }: { readonly cols: number; readonly count: number },
): Int32Array<ArrayBuffer> {
  const groups = new Int32Array(bytes.slice().buffer);
  if (groups.length !== cols) {
    const message = `${tensor}: ${groups.length} elements, expected ${cols}`;
    throw new ModelFormatError("TENSOR_SHAPE", message, { tensor });
  }
  const wrong = groups.findIndex((group) => group < 0 || group >= count);
  if (wrong >= 0) {
    const message = `${tensor}: element ${wrong} is ${groups[wrong]}, expected a group from 0 to ${count - 1}`;
    throw new ModelFormatError("G_IDX", message, { tensor });
  }
  return groups;
}
