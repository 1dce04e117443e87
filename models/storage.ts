/** Ways to store matrices, compared and named; and what stands for a module that is not there. */
import { BLOCK_COLS } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { rowMajor, type StoredModule } from "./formats/stored.ts";
import type { Storage } from "./matrix.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** Whether two matrices can be one. */
export const sameStorage = (a: Storage, b: Storage): boolean =>
  a.layout === b.layout &&
  a.group === b.group &&
  a.scaleType === b.scaleType &&
  a.sharedRows === b.sharedRows &&
  a.zeros?.bits === b.zeros?.bits &&
  a.zeros?.add === b.zeros?.add &&
  sameNumbers(a.table, b.table) &&
  sameNumbers(a.order, b.order);

/** Whether two lists are equal, or both left out. */
export function sameNumbers(a: ArrayLike<number> | undefined, b: ArrayLike<number> | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A way to store, in words. */
export const describe = ({ layout, group, scaleType }: Storage): string =>
  layouts[layout].scaling === "none" ? layout : `${layout}/${group} with ${scaleType} scales`;

/** The format of a module that is missing. */
export const MISSING = "missing";

/** What stands for a module with missing tensors: nothing of it is ever read. */
export function standIn(location: string, rows: number, cols: number): StoredModule {
  const read = () => Promise.reject(new RangeError(`${location}: a tensor that is missing was read`));
  const source = { name: location, size: 0, read, close: async () => {} };
  const tensor: CheckpointTensor = { name: "", dtype: "F32", shape: [rows, cols], begin: 0, end: 0, source };
  return {
    format: MISSING,
    layout: "f32",
    group: BLOCK_COLS,
    scaleType: "f16",
    codes: rowMajor(tensor, 32, cols),
    params: [],
  };
}
