/**
 * MLX modules that are stored (inputs, outputs): groups of such rows are no groups of columns in any layout, so they become f32 while they are read,
 * w = scales · q + biases, each step one f32 operation.
 */
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { derivedF32 } from "./derived.ts";
import type { MlxScheme } from "./mlxScheme.ts";
import {
  checkDtype,
  checkShape,
  columnMajor,
  inGroups,
  type ModuleShape,
  numbersFrom,
  type StoredModule,
  scaleTypeOf,
  type Tensors,
} from "./stored.ts";

const { fround } = Math;

/** The module as f32; undefined where tensors are missing. Throws UnsupportedModelError for MLX's floating modes. */
export function turnedModule(tensors: Tensors, shape: ModuleShape, scheme: MlxScheme): StoredModule | undefined {
  const { module, rows, cols, expertRows: each = rows } = shape;
  const { bits, group_size, mode } = scheme;
  if (mode !== "affine") throw new UnsupportedModelError(`${module}: stored by mode ${mode}, supported: affine`);
  const [weight, scales, biases] = ["weight", "scales", "biases"].map((name) => tensors.claim(`${module}.${name}`));
  if (weight === undefined || scales === undefined || biases === undefined) return undefined;
  if (each % group_size !== 0) {
    const message = `${module}.weight: ${each} inputs, expected a multiple of group_size ${group_size}`;
    throw new ModelFormatError("CONFIG", message, { tensor: weight.name });
  }
  const stored = cols * (rows / each);
  const because = `${bits} bits and group_size ${group_size} in config.json, inputs first`;
  checkShape(weight, [stored, (each * bits) / 32], because);
  checkDtype(weight, "U32");
  for (const tensor of [scales, biases]) checkShape(tensor, [stored, each / group_size], because);
  checkDtype(biases, scales.dtype);
  scaleTypeOf(scales);
  const dequantized = derivedF32(weight, stored * each, async (first, end, signal) => {
    const [begin, until] = [Math.floor(first / each), Math.ceil(end / each)];
    const lines = (tensor: CheckpointTensor) => readLines(tensor, stored, begin, until, signal);
    const [codes, ...params] = await Promise.all([lines(weight), lines(scales), lines(biases)]);
    const [scale, bias] = params.map((bytes) => numbersFrom(bytes, scales.dtype));
    const groups = each / group_size;
    const values = new Float32Array(end - first);
    for (let e = first; e < end; e++) {
      const [line, column] = [Math.floor(e / each) - begin, e % each];
      const g = line * groups + Math.floor(column / group_size);
      const q = codeAt(codes, line * each + column, bits);
      values[e - first] = fround(fround((scale?.[g] ?? Number.NaN) * q) + (bias?.[g] ?? Number.NaN));
    }
    return values;
  });
  const format = `mlx ${bits} bits, ${inGroups(group_size)} of inputs, as f32`;
  const codes = columnMajor(dequantized, 32, cols, each);
  return { format, layout: "f32", group: BLOCK_COLS, scaleType: "f16", params: [], codes };
}

/** Bytes of some of a tensor's lines. */
function readLines(
  { source, begin, end }: CheckpointTensor,
  count: number,
  from: number,
  to: number,
  signal?: AbortSignal,
) {
  const line = (end - begin) / count;
  return source.read(begin + from * line, begin + to * line, signal);
}

/** A code out of a stream of bits, from the low bits of each byte up. */
function codeAt(bytes: Uint8Array, index: number, bits: number): number {
  const at = index * bits;
  const two = (bytes[at >> 3] ?? 0) | ((bytes[(at >> 3) + 1] ?? 0) << 8);
  return (two >> (at & 7)) & (2 ** bits - 1);
}
