/**
 * FP8, as DeepSeek-V3 and Qwen3-FP8 write it: `weight` F8_E4M3 (rows, cols), and a scale for each block of `weight_block_size`, or for all of it.
 *
 *   w[o][i] = e4m3(weight[o][i]) · weight_scale_inv[o / b0][i / b1]          a product, despite the name
 *
 * Blocks at the edges are cut off. Modules whose weight is of a plain dtype are plain. `input_scale` and `activation_scale` are for activations, which stay f32 here.
 */
import { BLOCK_ROWS } from "../../kernels/formats/layout.ts";
import { type Fields, field, listField, textField, unsupported } from "../configChecks.ts";
import { ModelFormatError } from "../errors.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { groupsOf, groupView, singleView } from "./groups.ts";
import {
  checkDtype,
  checkShape,
  type ModuleShape,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  scaleBits,
  scaleTypeOf,
  type Tensors,
} from "./stored.ts";

/** How the scales of a module of e4m3 codes lie. */
export type Fp8Scales =
  | { readonly by: "tensor" }
  | { readonly by: "row" }
  | { readonly by: "block"; readonly block: readonly [rows: number, cols: number] };

/** Tensors beside a weight that are about its input: known, and never used. */
export const INPUT_TENSORS = ["input_scale", "input_zero_point", "input_global_scale", "activation_scale"];

/** Reads `quantization_config` of FP8. */
export function readFp8(fields: Fields): Quantization {
  const fmt = (textField(fields, "fmt") ?? "e4m3").toLowerCase();
  if (fmt !== "e4m3" && fmt !== "float8_e4m3fn") throw unsupported(fields, "fmt", '"e4m3"');
  const scales: Fp8Scales =
    field(fields, "weight_block_size") === undefined
      ? { by: "tensor" }
      : { by: "block", block: blockSize(fields, "weight_block_size") };
  return {
    method: "fp8",
    summary: JSON.stringify(scales),
    names: [],
    isDetail: () => false,
    module: (tensors, shape) => {
      const scale = ["weight_scale_inv", "weight_scale"].find((name) => tensors.has(`${shape.module}.${name}`));
      if (scale === undefined && tensors.dtype(shape.weight) !== "F8_E4M3") return null;
      return fp8Module(tensors, shape, `${shape.module}.${scale ?? "weight_scale_inv"}`, scales);
    },
  };
}

/** A pair of block sizes. */
export function blockSize(fields: Fields, key: string): [number, number] {
  const list = listField(fields, key) ?? [];
  const [rows, cols] = list;
  const whole = (size: unknown): size is number =>
    typeof size === "number" && Number.isInteger(size) && size >= 8 && size % 8 === 0;
  if (list.length !== 2 || !whole(rows) || !whole(cols)) throw unsupported(fields, key, "two multiples of 8");
  return [rows, cols];
}

/** A module of e4m3 codes; undefined where tensors are missing. */
export function fp8Module(
  tensors: Tensors,
  shape: ModuleShape,
  scaleName: string,
  scales: Fp8Scales,
): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const weight = tensors.claim(shape.weight);
  const scale = tensors.claim(scaleName);
  for (const name of INPUT_TENSORS) tensors.claimIfThere(`${module}.${name}`);
  if (weight === undefined || scale === undefined) return undefined;
  checkShape(weight, [rows, cols]);
  checkDtype(weight, "F8_E4M3");
  const scaleType = scaleTypeOf(scale);
  const bits = scaleBits(scaleType);
  const groups = groupsOf(module, cols, scales.by === "block" ? scales.block[1] : undefined, 8);
  const storage = { layout: "e4m3", group: groups.group, scaleType } as const;
  const view = scaleView(scale, bits, { rows, groups, scales });
  const format = `fp8, a scale a ${scales.by === "block" ? `block of ${scales.block.join(" × ")}` : scales.by}`;
  const codes = rowMajor(weight, 8, cols);
  const byRow = { ...storage, format, codes, params: paramViews(storage, cols, { scale: view }) };
  if (scales.by !== "block" || scales.block[0] % BLOCK_ROWS !== 0 || scaleType === "f16") return byRow;
  const shared = { ...storage, scaleType: "f32", sharedRows: true } as const;
  return { ...shared, format, codes, params: paramViews(shared, cols, { scale: view }), byRow };
}

function scaleView(
  scale: CheckpointTensor,
  bits: number,
  {
    rows,
    groups,
    scales,
  }: { readonly rows: number; readonly groups: ReturnType<typeof groupsOf>; readonly scales: Fp8Scales },
) {
  switch (scales.by) {
    case "tensor":
      return singleScale(scale, bits, rows);
    case "row":
      return rowScale(scale, bits, rows);
    case "block": {
      const [rowTile] = scales.block;
      checkShape(scale, [Math.ceil(rows / rowTile), groups.storedCount], "the blocks in config.json");
      return groupView(scale, bits, groups, { rowTile });
    }
  }
}

/** The view of a scale of the whole tensor: [] or [1]. */
export function singleScale(scale: CheckpointTensor, bits: number, rows: number) {
  if (scale.shape.some((size) => size !== 1)) throw wrongScale(scale, "one element");
  return singleView(scale, bits, rows);
}

/** The view of a scale a row: [rows] or [rows, 1]. */
export function rowScale(scale: CheckpointTensor, bits: number, rows: number) {
  const [first, second = 1, ...more] = scale.shape;
  if (first !== rows || second !== 1 || more.length > 0) throw wrongScale(scale, `(${rows}, 1)`);
  return rowMajor(scale, bits, 1);
}

function wrongScale(scale: CheckpointTensor, want: string): ModelFormatError {
  const message = `${scale.name}: shape (${scale.shape.join(", ")}), expected ${want} from config.json`;
  return new ModelFormatError("TENSOR_SHAPE", message, { tensor: scale.name });
}
