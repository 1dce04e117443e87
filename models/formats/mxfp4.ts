/**
 * MXFP4 as gpt-oss stores its experts: `X_blocks` U8 (experts, rows, cols / 32, 16) and `X_scales` U8 (experts, rows, cols / 32).
 *
 *   w = e2m1(code) · 2^(scale − 127)          byte j of a block holds columns 2j, in its low half, and 2j + 1
 *
 * Parameters without these are plain.
 */
import type { Fields } from "../configChecks.ts";
import { ModelFormatError } from "../errors.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { groupsOf, groupView } from "./groups.ts";
import {
  checkDtype,
  type ModuleShape,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  type Tensors,
} from "./stored.ts";

/** Columns a scale. */
const BLOCK = 32;

/** Reads `quantization_config` of MXFP4: it has no options that change the weights. */
export function readMxfp4(_fields: Fields): Quantization {
  return {
    method: "mxfp4",
    summary: "mxfp4",
    names: [],
    isDetail: () => false,
    module: (tensors, shape) =>
      ["_blocks", "_scales"].some((end) => tensors.has(`${shape.module}${end}`)) ? mxfp4Module(tensors, shape) : null,
  };
}

function mxfp4Module(tensors: Tensors, { module, rows, cols }: ModuleShape): StoredModule | undefined {
  const blocks = tensors.claim(`${module}_blocks`);
  const scales = tensors.claim(`${module}_scales`);
  if (blocks === undefined || scales === undefined) return undefined;
  checkEnd(blocks, rows, [cols / BLOCK, BLOCK / 2]);
  checkEnd(scales, rows, [cols / BLOCK]);
  for (const tensor of [blocks, scales]) checkDtype(tensor, "U8");
  const groups = groupsOf(module, cols, BLOCK);
  const storage = { layout: "e2m1", group: groups.group, scaleType: "e8m0" } as const;
  const params = paramViews(storage, cols, { scale: groupView(scales, 8, groups) });
  return { ...storage, format: "mxfp4", codes: rowMajor(blocks, 4, cols), params };
}

/** The last dimensions must be these, and those before them `rows` together. */
function checkEnd(tensor: CheckpointTensor, rows: number, last: readonly number[]): void {
  const lead = tensor.shape.slice(0, -last.length).reduce((a, b) => a * b, 1);
  if (lead === rows && last.every((size, i) => size === tensor.shape.at(i - last.length))) return;
  const message = `${tensor.name}: shape (${tensor.shape.join(", ")}), expected ${rows} rows of (${last.join(", ")}) from config.json`;
  throw new ModelFormatError("TENSOR_SHAPE", message, { tensor: tensor.name });
}
