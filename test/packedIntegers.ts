/** Modules of integer codes, taken out of GPTQ, AWQ and compressed-tensors and put into any of them: the same codes, zeros and scales. */
import { numbersOf } from "./saying.ts";
import { floats, type TinyTensor } from "./tinyModel.ts";

/** A module's numbers, whatever holds them. */
export interface Integers {
  readonly rows: number;
  readonly cols: number;
  readonly bits: number;
  /** Columns a group. */
  readonly group: number;
  /** (rows, cols) */
  readonly codes: readonly number[];
  /** (rows, groups) */
  readonly zeros: readonly number[];
  readonly scales: readonly number[];
  readonly scaleType: "F32" | "F16" | "BF16";
  /** The group of each column, where they lie in no order. */
  readonly g_idx: readonly number[] | undefined;
}

/** Tensors by their names behind the module's path. */
export type Module = ReadonlyMap<string, TinyTensor>;

/** In an AWQ word, nibble p holds output AWQ[p]. */
const AWQ = [0, 2, 4, 6, 1, 3, 5, 7];
const awqPlace = (output: number) => 8 * Math.floor(output / 8) + AWQ.indexOf(output % 8);

function get(module: Module, name: string): TinyTensor {
  const tensor = module.get(name);
  if (tensor === undefined) throw new RangeError(`no ${name} among ${[...module.keys()].join(", ")}`);
  return tensor;
}

/** Element `index` of a stream of codes, from the low bits of each byte up. */
function codeAt({ bytes }: TinyTensor, index: number, bits: number): number {
  const byte = bytes[Math.floor((index * bits) / 8)] ?? Number.NaN;
  return (byte >> ((index * bits) % 8)) & (2 ** bits - 1);
}

/** Codes of 4 or 8 bits as a stream, `place` telling where each goes. */
function streamOf(codes: readonly number[], bits: number, place: (index: number) => number, shape: readonly number[]) {
  const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
  for (const [i, code] of codes.entries()) {
    const bit = place(i) * bits;
    bytes[bit >> 3] = (bytes[bit >> 3] ?? Number.NaN) | (code << (bit & 7));
  }
  return { dtype: "I32", shape, bytes } as const;
}

const int32s = ({ bytes }: TinyTensor) => [...new Int32Array(bytes.slice().buffer)];
const intTensor = (values: readonly number[]): TinyTensor => ({
  dtype: "I32",
  shape: [values.length],
  bytes: new Uint8Array(Int32Array.from(values).buffer),
});
const range = <T>(count: number, of: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => of(i));
/** (groups, rows) as (rows, groups), or back. */
const across = (values: readonly number[], rows: number): number[] =>
  range(
    values.length,
    (i) => values[(i % (values.length / rows)) * rows + Math.floor(i / (values.length / rows))] ?? Number.NaN,
  );

const scaleTypeOf = ({ dtype }: TinyTensor): Integers["scaleType"] => {
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") throw new RangeError(`scales of ${dtype}`);
  return dtype;
};

/** Groups of columns that lie in no order; undefined where they lie side by side. */
function orderOf(module: Module, name: string, group: number): readonly number[] | undefined {
  const tensor = module.get(name);
  if (tensor === undefined) return undefined;
  const groups = int32s(tensor);
  return groups.every((g, i) => g === Math.floor(i / group)) ? undefined : groups;
}

/** Out of GPTQ; `add` is what stored zeros lack. */
export function fromGptq(module: Module, { bits, add }: { bits: number; add: number }): Integers {
  const [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map((name) => get(module, name)) as [
    TinyTensor,
    TinyTensor,
    TinyTensor,
  ];
  const per = 32 / bits;
  const [words = 0, rows = 0] = qweight.shape;
  const [groups = 1] = scales.shape;
  const cols = words * per;
  const code = (o: number, i: number) => codeAt(qweight, (Math.floor(i / per) * rows + o) * per + (i % per), bits);
  const zeros = range(groups * rows, (i) => codeAt(qzeros, i, bits) + add);
  const group = cols / groups;
  return {
    rows,
    cols,
    bits,
    group,
    codes: range(rows * cols, (i) => code(Math.floor(i / cols), i % cols)),
    zeros: across(zeros, rows),
    scales: across([...numbersOf(scales)], rows),
    scaleType: scaleTypeOf(scales),
    g_idx: orderOf(module, "g_idx", group),
  };
}

/** Out of AWQ. */
export function fromAwq(module: Module): Integers {
  const [qweight, qzeros, scales] = [get(module, "qweight"), get(module, "qzeros"), get(module, "scales")];
  const [cols = 0] = qweight.shape;
  const [groups = 1, rows = 0] = scales.shape;
  return {
    rows,
    cols,
    bits: 4,
    group: cols / groups,
    codes: range(rows * cols, (i) => codeAt(qweight, (i % cols) * rows + awqPlace(Math.floor(i / cols)), 4)),
    zeros: across(
      range(groups * rows, (i) => codeAt(qzeros, Math.floor(i / rows) * rows + awqPlace(i % rows), 4)),
      rows,
    ),
    scales: across([...numbersOf(scales)], rows),
    scaleType: scaleTypeOf(scales),
    g_idx: undefined,
  };
}

/** Out of compressed-tensors, packed or a byte a code. */
export function fromCompressed(module: Module, { bits, cols }: { bits: number; cols: number }): Integers {
  const packed = module.get("weight_packed");
  const codes = packed ?? get(module, "weight");
  const scale = get(module, "weight_scale");
  const [rows = 0, groups = 1] = scale.shape;
  const stride = packed === undefined ? cols : ((packed.shape[1] ?? Number.NaN) * 32) / bits;
  const flip = packed === undefined ? 0x80 : 0;
  const zero = module.get("weight_zero_point");
  const per = 32 / bits;
  const zeroAt = (o: number, g: number) =>
    zero === undefined ? 2 ** (bits - 1) : codeAt(zero, (Math.floor(o / per) * groups + g) * per + (o % per), bits);
  const group = cols / groups;
  return {
    rows,
    cols,
    bits,
    group,
    codes: range(rows * cols, (i) => codeAt(codes, Math.floor(i / cols) * stride + (i % cols), bits) ^ flip),
    zeros: range(rows * groups, (i) => zeroAt(Math.floor(i / groups), i % groups)),
    scales: [...numbersOf(scale)],
    scaleType: scaleTypeOf(scale),
    g_idx: orderOf(module, "weight_g_idx", group),
  };
}

/** Into GPTQ; `add` is what stored zeros lack. */
export function toGptq(it: Integers, add: 0 | 1): Module {
  const { rows, cols, bits, group } = it;
  const [per, groups] = [32 / bits, cols / group];
  const place = (i: number) => {
    const [o, c] = [Math.floor(i / cols), i % cols];
    return (Math.floor(c / per) * rows + o) * per + (c % per);
  };
  const zeros = across(it.zeros, groups).map((zero) => zero - add);
  const g_idx = it.g_idx ?? range(cols, (i) => Math.floor(i / group));
  return new Map<string, TinyTensor>([
    ["qweight", streamOf(it.codes, bits, place, [cols / per, rows])],
    ["qzeros", streamOf(zeros, bits, (i) => i, [groups, rows / per])],
    ["scales", floats(Float32Array.from(across(it.scales, groups)), it.scaleType, [groups, rows])],
    ["g_idx", intTensor(g_idx)],
  ]);
}

/** Into AWQ. */
export function toAwq(it: Integers): Module {
  const { rows, cols } = it;
  const groups = cols / it.group;
  return new Map<string, TinyTensor>([
    ["qweight", streamOf(it.codes, 4, (i) => (i % cols) * rows + awqPlace(Math.floor(i / cols)), [cols, rows / 8])],
    [
      "qzeros",
      streamOf(across(it.zeros, groups), 4, (i) => Math.floor(i / rows) * rows + awqPlace(i % rows), [
        groups,
        rows / 8,
      ]),
    ],
    ["scales", floats(Float32Array.from(across(it.scales, groups)), it.scaleType, [groups, rows])],
  ]);
}

/** Into compressed-tensors' packed form, with zeros unless `symmetric`. */
export function toPacked(it: Integers, symmetric: boolean): Module {
  const { rows, cols, bits } = it;
  const [per, groups] = [32 / bits, cols / it.group];
  const zeroPlace = (i: number) => {
    const [o, g] = [Math.floor(i / groups), i % groups];
    return (Math.floor(o / per) * groups + g) * per + (o % per);
  };
  const zeros = streamOf(it.zeros, bits, zeroPlace, [Math.ceil(rows / per), groups]);
  return new Map<string, TinyTensor>([
    ["weight_packed", streamOf(it.codes, bits, (i) => i, [rows, cols / per])],
    ["weight_scale", floats(Float32Array.from(it.scales), it.scaleType, [rows, groups])],
    ...(symmetric ? [] : [["weight_zero_point", zeros] as const]),
    ...(it.g_idx === undefined ? [] : [["weight_g_idx", intTensor(it.g_idx)] as const]),
  ]);
}

/** Into MLX's affine form, whose bias is −scale · zero: exact where that is a number of the scales' type. */
export function toMlx(it: Integers): Module {
  const { rows, cols, bits } = it;
  const groups = cols / it.group;
  const biases = it.scales.map((scale, i) => -scale * (it.zeros[i] ?? Number.NaN));
  const { bytes } = streamOf(it.codes, bits, (i) => i, [rows, (cols * bits) / 32]);
  return new Map<string, TinyTensor>([
    ["weight", { dtype: "U32", shape: [rows, (cols * bits) / 32], bytes }],
    ["scales", floats(Float32Array.from(it.scales), it.scaleType, [rows, groups])],
    ["biases", floats(Float32Array.from(biases), it.scaleType, [rows, groups])],
  ]);
}
