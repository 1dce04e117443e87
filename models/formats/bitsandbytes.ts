/**
 * bitsandbytes: 4 bits by a table of 16 numbers, and int8 rows.
 *
 *   4 bits:  w = quant_map[code] · absmax[j / blocksize]     j counts the weight's elements row by row, so that blocks run on across rows
 *            absmax is F32; or U8, and then absmax = nested_quant_map[absmax] · nested_absmax[block / nested_blocksize] + nested_offset
 *   int8:    w = q · (SCB[row] / 127)
 *
 * `weight` has two codes a byte, the first in the high half. Sizes and offsets are JSON in `weight.quant_state.bitsandbytes__nf4` (or fp4). A module without these
 * tensors is plain. The outlier threshold of int8 is about activations, which stay f32 here.
 */
import {
  booleanField,
  type Fields,
  fieldsOf,
  integerField,
  listField,
  optionalNumber,
  textField,
  unsupported,
} from "../configChecks.ts";
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { derivedF32, f32sOf, readF32 } from "./derived.ts";
import { rowScale } from "./fp8.ts";
import { gcd } from "./groups.ts";
import {
  checkDtype,
  checkShape,
  type ModuleShape,
  paramViews,
  type Quantization,
  rowMajor,
  type StoredModule,
  type Tensors,
} from "./stored.ts";

const STATE = /\.weight\.quant_state\.bitsandbytes__(nf4|fp4)$/;
/** Types that bytes of codes are stored as: `bnb_4bit_quant_storage`. */
const STORED_AS = ["U8", "I8", "BF16", "F16", "F32"];
/** 1/127 in f32, as the library multiplies. */
const INT8_STEP = Math.fround(1 / 127);

/** Reads `quantization_config` of bitsandbytes: which modules are quantized, and how, their tensors tell. */
export function readBitsandbytes(fields: Fields): Quantization {
  const four = booleanField(fields, "load_in_4bit") ?? booleanField(fields, "_load_in_4bit") ?? false;
  const eight = booleanField(fields, "load_in_8bit") ?? booleanField(fields, "_load_in_8bit") ?? false;
  if (four === eight) throw unsupported(fields, "load_in_4bit", "either load_in_4bit or load_in_8bit");
  const type = textField(fields, "bnb_4bit_quant_type") ?? "fp4";
  if (four && type !== "nf4" && type !== "fp4") throw unsupported(fields, "bnb_4bit_quant_type", '"nf4", "fp4"');
  return {
    method: "bitsandbytes",
    summary: four ? type : "int8",
    names: [],
    isDetail: (name) => STATE.test(name) || /\.weight\.quant_map$/.test(name) || /\.weight_format$/.test(name),
    module: (tensors, shape) => {
      const states = ["nf4", "fp4"].map((kind) => `${shape.module}.weight.quant_state.bitsandbytes__${kind}`);
      const state = states.find(tensors.has);
      if (state !== undefined) return fourBits(tensors, shape, state);
      if (tensors.has(`${shape.weight}.absmax`)) return fourBits(tensors, shape, states[type === "fp4" ? 1 : 0] ?? ""); // which is missing
      return tensors.has(`${shape.module}.SCB`) || tensors.dtype(shape.weight) === "I8" ? int8(tensors, shape) : null;
    },
  };
}

function int8(tensors: Tensors, { module, rows, cols, weight: name }: ModuleShape): StoredModule | undefined {
  const weight = tensors.claim(name);
  const scale = tensors.claim(`${module}.SCB`);
  const order = tensors.claimIfThere(`${module}.weight_format`);
  if (weight === undefined || scale === undefined) return undefined;
  checkShape(weight, [rows, cols]);
  checkDtype(weight, "I8");
  checkDtype(scale, "F32");
  checkShape(scale, [rows]);
  const format = order === undefined ? 0 : tensors.detail(order.name)?.[0];
  if (format !== 0)
    throw new UnsupportedModelError(`${module}.weight_format: ${format}, supported: 0, rows as they are`);
  const storage = {
    layout: "affine8",
    group: Math.ceil(cols / 32) * 32,
    scaleType: "f32",
    zeros: { bits: 0, add: 128 },
  } as const;
  const steps = derivedF32(scale, rows, async (first, end, signal) =>
    (await readF32(scale, first, end, signal)).map((most) => Math.fround(most * INT8_STEP)),
  );
  const params = paramViews(storage, cols, { scale: rowScale(steps, 32, rows) });
  return { ...storage, format: "bitsandbytes int8", codes: rowMajor(weight, 8, cols, cols, { flip: 0x80 }), params };
}

/** What the JSON beside a weight says. */
interface QuantState {
  readonly blocksize: number;
  readonly nestedBlocksize: number;
  readonly nestedOffset: number;
}

function fourBits(
  tensors: Tensors,
  { module, rows, cols, weight: name }: ModuleShape,
  stateName: string,
): StoredModule | undefined {
  const weight = tensors.claim(name);
  const absmax = tensors.claim(`${name}.absmax`);
  const map = tensors.claim(`${name}.quant_map`);
  const state = tensors.claim(stateName);
  const nested = absmax?.dtype === "U8";
  const nestedMap = nested ? tensors.claim(`${name}.nested_quant_map`) : undefined;
  const nestedAbsmax = nested ? tensors.claim(`${name}.nested_absmax`) : undefined;
  const table = tensors.detail(`${name}.quant_map`);
  const said = tensors.detail(stateName);
  if (weight === undefined || absmax === undefined || map === undefined || state === undefined) return undefined;
  if (table === undefined || said === undefined || (nested && (nestedMap === undefined || nestedAbsmax === undefined)))
    return undefined;
  const { blocksize, nestedBlocksize, nestedOffset } = readState(stateName, said, rows, cols);
  const blocks = Math.ceil((rows * cols) / blocksize);
  if (weight.end - weight.begin !== Math.ceil((rows * cols) / 2))
    throw wrongSize(weight, `${rows} × ${cols} codes, two a byte`);
  checkShape(map, [16]);
  checkShape(absmax, [blocks], `blocksize ${blocksize} in ${stateName}`);
  checkDtype(absmax, "F32", "U8");
  checkDtype(weight, ...STORED_AS);
  checkDtype(state, "U8");
  if (nestedMap !== undefined) checkShape(nestedMap, [256]);
  if (nestedAbsmax !== undefined)
    checkShape(
      nestedAbsmax,
      [Math.ceil(blocks / nestedBlocksize)],
      `nested_blocksize ${nestedBlocksize} in ${stateName}`,
    );
  for (const tensor of [map, ...[nestedMap, nestedAbsmax].filter((it) => it !== undefined)]) checkDtype(tensor, "F32");
  const group = groupOf(module, cols, blocksize);
  const storage = { layout: "codebook4", group, scaleType: "f32", table: f32sOf(table) } as const;
  const scales = repeated(absmax, blocks, blocksize / group, (first, end, signal) =>
    nestedMap === undefined || nestedAbsmax === undefined
      ? readF32(absmax, first, end, signal)
      : nestedScales({ absmax, nestedMap, nestedAbsmax, nestedBlocksize, nestedOffset }, first, end, signal),
  );
  const view = rowMajor(scales, 32, Math.ceil(cols / group));
  return {
    ...storage,
    format: `bitsandbytes ${stateName.slice(-3)}, blocks of ${blocksize}${nested ? ", nested scales" : ""}`,
    codes: rowMajor(weight, 4, cols, cols, { elementOrder: "swapped" }),
    params: paramViews(storage, cols, { scale: view }),
  };
}

/** The longest group of whole octets in which both the row and the block end: blocks run on across rows. */
function groupOf(module: string, cols: number, blocksize: number): number {
  const group = gcd(blocksize, cols);
  if (group % 8 !== 0)
    throw new UnsupportedModelError(`${module}: ${cols} columns in blocks of ${blocksize}, supported: multiples of 8`);
  return group < 32 ? gcd(group, 32) : group % 32 === 0 ? group : gcd(group, 32);
}

function readState(name: string, bytes: Uint8Array, rows: number, cols: number): QuantState {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ModelFormatError("QUANTIZATION", `${name}: not JSON in UTF-8`, { tensor: name, cause });
  }
  const fields = fieldsOf(name, value);
  const shape = listField(fields, "shape") ?? [];
  if (shape.length !== 2 || shape[0] !== rows || shape[1] !== cols)
    throw new ModelFormatError(
      "TENSOR_SHAPE",
      `${name}: shape is (${shape.join(", ")}), expected (${rows}, ${cols}) from config.json`,
      { tensor: name },
    );
  return {
    blocksize: integerField(fields, "blocksize", { min: 8, max: 2 ** 20 }),
    nestedBlocksize:
      fields.values.nested_blocksize === undefined
        ? 1
        : integerField(fields, "nested_blocksize", { min: 1, max: 2 ** 20 }),
    nestedOffset: Math.fround(optionalNumber(fields, "nested_offset", {}) ?? 0),
  };
}

/** Each element of a tensor `times` times. */
function repeated(
  from: CheckpointTensor,
  count: number,
  times: number,
  read: (first: number, end: number, signal?: AbortSignal) => Promise<Float32Array<ArrayBuffer>>,
): CheckpointTensor {
  return derivedF32(from, count * times, async (first, end, signal) => {
    const before = Math.floor(first / times);
    const values = await read(before, Math.ceil(end / times), signal);
    return Float32Array.from(
      { length: end - first },
      (_, i) => values[Math.floor((first + i) / times) - before] ?? Number.NaN,
    );
  });
}

interface NestedScales {
  readonly absmax: CheckpointTensor;
  readonly nestedMap: CheckpointTensor;
  readonly nestedAbsmax: CheckpointTensor;
  readonly nestedBlocksize: number;
  readonly nestedOffset: number;
}

async function nestedScales(
  { absmax, nestedMap, nestedAbsmax, nestedBlocksize, nestedOffset }: NestedScales,
  first: number,
  end: number,
  signal?: AbortSignal,
): Promise<Float32Array<ArrayBuffer>> {
  const codes = await absmax.source.read(absmax.begin + first, absmax.begin + end, signal);
  const map = await readF32(nestedMap, 0, 256, signal);
  const before = Math.floor(first / nestedBlocksize);
  const outer = await readF32(nestedAbsmax, before, Math.ceil(end / nestedBlocksize), signal);
  return Float32Array.from(codes, (code, i) => {
    const scale = outer[Math.floor((first + i) / nestedBlocksize) - before] ?? Number.NaN;
    return Math.fround(Math.fround((map[code] ?? Number.NaN) * scale) + nestedOffset);
  });
}

function wrongSize(tensor: CheckpointTensor, want: string): ModelFormatError {
  const message = `${tensor.name}: ${tensor.end - tensor.begin} bytes, expected ${want}`;
  return new ModelFormatError("TENSOR_SHAPE", message, { tensor: tensor.name });
}
