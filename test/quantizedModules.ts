/**
 * Random modules in every checkpoint format, of shapes that no published model has: packed here by the formats' own rules,
 * with their weights by the same rules said once more.
 */

import { memoryFolder } from "../device/memoryFiles.ts";
import { f16Bits, f16FromBits } from "../kernels/formats/halves.ts";
import { Random } from "../kernels/testbed.ts";
import { fieldsOf } from "../models/configChecks.ts";
import { readDetails } from "../models/details.ts";
import type { Matrix } from "../models/matrix.ts";
import { normalizeQuantization } from "../models/quantization.ts";
import { WeightPlan } from "../models/weightPlan.ts";
import { openCheckpoint } from "../models/weights/checkpoint.ts";
import { safetensorsFile } from "../models/weights/writeSafetensors.ts";
import type { TinyTensor } from "./tinyModel.ts";

/** A module and what its weights are. */
export interface QuantizedModule {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly config: Record<string, unknown>;
  /** By the names behind the module's path. */
  readonly tensors: ReadonlyMap<string, TinyTensor>;
  /** Output o, input i. */
  weight(o: number, i: number): number;
}

const MODULE = "model.layers.0.mlp.up_proj";
const { fround } = Math;
const number = (values: ArrayLike<number>, index: number): number => values[index] ?? Number.NaN;

/** Elements behind each other, each from its low bits up. */
function stream(elements: ArrayLike<number>, bits: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((elements.length * bits) / 8));
  for (let e = 0; e < elements.length; e++) {
    for (let b = 0; b < bits; b++) {
      const bit = e * bits + b;
      bytes[bit >> 3] = number(bytes, bit >> 3) | (((number(elements, e) >> b) & 1) << (bit & 7));
    }
  }
  return bytes;
}

const tensor = (dtype: TinyTensor["dtype"], shape: readonly number[], bytes: Uint8Array): TinyTensor => ({
  dtype,
  shape,
  bytes,
});
const bytesOf = (data: Float32Array | Uint16Array | Int32Array) =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const f32s = (values: readonly number[], shape: readonly number[]) =>
  tensor("F32", shape, bytesOf(Float32Array.from(values)));
const f16s = (values: readonly number[], shape: readonly number[]) =>
  tensor("F16", shape, bytesOf(Uint16Array.from(values, f16Bits)));
const i32s = (values: readonly number[], shape: readonly number[]) =>
  tensor("I32", shape, bytesOf(Int32Array.from(values)));

/** Random numbers, and scales as f16 has them. */
const draw = (random: Random, count: number, below: number) => Array.from({ length: count }, () => random.below(below));
const halves = (random: Random, count: number) =>
  Array.from({ length: count }, () => f16FromBits(f16Bits(0.01 + random.next())));
const floats = (random: Random, count: number) => Array.from({ length: count }, () => fround(0.01 + random.next()));

/** Element e of the result is element `from(e)` of the codes. */
const arranged = (codes: readonly number[], from: (e: number) => number, length = codes.length) =>
  Array.from({ length }, (_, e) => codes[from(e)] ?? 0);

/** Codes (rows, cols), and zeros and scales (rows, groups), for a packing to take. */
interface Given {
  readonly codes: readonly number[];
  readonly zeros: readonly number[];
  readonly scales: readonly number[];
}

/** Zeros and scales by groups first. */
function turned({ zeros, scales }: Given, rows: number, groups: number) {
  const turn = (values: readonly number[]) => arranged(values, (e) => (e % rows) * groups + Math.floor(e / rows));
  return { zeros: turn(zeros), scales: turn(scales) };
}

function gptq(
  rows: number,
  cols: number,
  bits: 4 | 8,
  group: number,
  options: { v2?: true; sorted?: true },
  given?: Given,
): QuantizedModule {
  const random = new Random(rows * cols + bits);
  const per = 32 / bits;
  const size = group === -1 ? cols : group;
  const groups = Math.ceil(cols / size);
  const codes = given?.codes ?? draw(random, rows * cols, 2 ** bits);
  const ready = given === undefined ? undefined : turned(given, rows, groups);
  const zeros = ready?.zeros.map((zero) => zero - (options.v2 ? 0 : 1)) ?? draw(random, groups * rows, 2 ** bits - 1);
  const scales = ready?.scales ?? halves(random, groups * rows);
  const g_idx = Array.from({ length: cols }, (_, i) => Math.floor(i / size));
  if (options.sorted)
    for (let i = cols - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [g_idx[i], g_idx[j]] = [number(g_idx, j), number(g_idx, i)];
    }
  const inputsFirst = arranged(codes, (e) => {
    const [word, lane] = [Math.floor(e / per), e % per];
    return (word % rows) * cols + Math.floor(word / rows) * per + lane;
  });
  return {
    name: `gptq ${bits} bits, groups of ${group}, ${rows} × ${cols}${options.sorted ? ", act-order" : ""}${options.v2 ? ", v2" : ""}`,
    rows,
    cols,
    config: {
      quantization_config: {
        quant_method: "gptq",
        bits,
        group_size: group,
        checkpoint_format: options.v2 ? "gptq_v2" : "gptq",
      },
    },
    tensors: new Map([
      ["qweight", tensor("I32", [cols / per, rows], stream(inputsFirst, bits))],
      ["qzeros", tensor("I32", [groups, rows / per], stream(zeros, bits))],
      ["scales", f16s(scales, [groups, rows])],
      ["g_idx", i32s(g_idx, [cols])],
    ]),
    weight: (o, i) => {
      const g = number(g_idx, i) * rows + o;
      return number(scales, g) * (number(codes, o * cols + i) - number(zeros, g) - (options.v2 ? 0 : 1));
    },
  };
}

function awq(rows: number, cols: number, group: number, given?: Given): QuantizedModule {
  const random = new Random(rows + cols);
  const groups = Math.ceil(cols / group);
  const codes = given?.codes ?? draw(random, rows * cols, 16);
  const ready = given === undefined ? undefined : turned(given, rows, groups);
  const zeros = ready?.zeros ?? draw(random, groups * rows, 16);
  const scales = ready?.scales ?? halves(random, groups * rows);
  const order = [0, 2, 4, 6, 1, 3, 5, 7];
  const output = (e: number) => Math.floor((e % rows) / 8) * 8 + number(order, e % 8);
  return {
    name: `awq, groups of ${group}, ${rows} × ${cols}`,
    rows,
    cols,
    config: {
      quantization_config: { quant_method: "awq", bits: 4, group_size: group, version: "gemm", zero_point: true },
    },
    tensors: new Map([
      [
        "qweight",
        tensor(
          "I32",
          [cols, rows / 8],
          stream(
            arranged(codes, (e) => output(e) * cols + Math.floor(e / rows)),
            4,
          ),
        ),
      ],
      [
        "qzeros",
        tensor(
          "I32",
          [groups, rows / 8],
          stream(
            arranged(zeros, (e) => Math.floor(e / rows) * rows + output(e)),
            4,
          ),
        ),
      ],
      ["scales", f16s(scales, [groups, rows])],
    ]),
    weight: (o, i) => {
      const g = Math.floor(i / group) * rows + o;
      return number(scales, g) * (number(codes, o * cols + i) - number(zeros, g));
    },
  };
}

const compressed = (format: string, weights: object) => ({
  quantization_config: {
    quant_method: "compressed-tensors",
    format,
    config_groups: { group_0: { targets: ["Linear"], weights } },
  },
});

function packed(
  rows: number,
  cols: number,
  bits: number,
  group: number | null,
  symmetric: boolean,
  given?: Given,
): QuantizedModule {
  const random = new Random(rows * bits + cols);
  const size = group ?? cols;
  const groups = Math.ceil(cols / size);
  const codes = given?.codes ?? draw(random, rows * cols, 2 ** bits);
  const zeros = given?.zeros ?? draw(random, rows * groups, 2 ** bits);
  const scales = given?.scales ?? halves(random, rows * groups);
  const rowWords = Math.ceil((cols * bits) / 32);
  const per = 32 / bits;
  const lines = Math.ceil(rows / per);
  const inRows = new Uint8Array(4 * rows * rowWords);
  for (let row = 0; row < rows; row++)
    inRows.set(stream(codes.slice(row * cols, (row + 1) * cols), bits), 4 * row * rowWords);
  const alongRows = arranged(
    zeros,
    (e) => {
      const [word, lane] = [Math.floor(e / per), e % per];
      const row = Math.floor(word / groups) * per + lane;
      return row < rows ? row * groups + (word % groups) : -1;
    },
    lines * per * groups,
  );
  const strategy = group === null ? { strategy: "channel" } : { strategy: "group", group_size: group };
  return {
    name: `pack-quantized ${bits} bits, ${group === null ? "a scale a row" : `groups of ${group}`}, ${symmetric ? "symmetric" : "zeros"}, ${rows} × ${cols}`,
    rows,
    cols,
    config: compressed("pack-quantized", { num_bits: bits, type: "int", symmetric, ...strategy }),
    tensors: new Map([
      ["weight_packed", tensor("I32", [rows, rowWords], inRows)],
      ["weight_scale", f16s(scales, [rows, groups])],
      ...(symmetric ? [] : [["weight_zero_point", tensor("I32", [lines, groups], stream(alongRows, bits))] as const]),
    ]),
    weight: (o, i) => {
      const g = o * groups + Math.floor(i / size);
      return number(scales, g) * (number(codes, o * cols + i) - (symmetric ? 2 ** (bits - 1) : number(zeros, g)));
    },
  };
}

function int8(rows: number, cols: number): QuantizedModule {
  const random = new Random(rows + 3 * cols);
  const codes = draw(random, rows * cols, 256);
  const scales = halves(random, rows);
  return {
    name: `int-quantized, ${rows} × ${cols}`,
    rows,
    cols,
    config: compressed("int-quantized", { num_bits: 8, type: "int", strategy: "channel", symmetric: true }),
    tensors: new Map([
      ["weight", tensor("I8", [rows, cols], Uint8Array.from(codes))],
      ["weight_scale", f16s(scales, [rows, 1])],
    ]),
    weight: (o, i) => number(scales, o) * ((number(codes, o * cols + i) << 24) >> 24),
  };
}

/** The number of an e4m3 code, from its bits. */
const e4m3 = (code: number) => {
  const [exponent, fraction] = [(code >> 3) & 15, code & 7];
  return (code & 128 ? -1 : 1) * (exponent === 0 ? fraction * 2 ** -9 : (8 + fraction) * 2 ** (exponent - 10));
};
const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const e2m1 = (code: number) => (code & 8 ? -1 : 1) * number(E2M1, code & 7);
/** All codes but the two of NaN. */
const eights = (random: Random, count: number) =>
  draw(random, count, 254).map((code) => (code < 127 ? code : code + 1));

function fp8(rows: number, cols: number, block: readonly [number, number]): QuantizedModule {
  const random = new Random(rows * 5 + cols);
  const codes = eights(random, rows * cols);
  const [down, along] = [Math.ceil(rows / block[0]), Math.ceil(cols / block[1])];
  const scales = floats(random, down * along);
  return {
    name: `fp8 by ${block.join(" × ")}, ${rows} × ${cols}`,
    rows,
    cols,
    config: { quantization_config: { quant_method: "fp8", weight_block_size: block } },
    tensors: new Map([
      ["weight", tensor("F8_E4M3", [rows, cols], Uint8Array.from(codes))],
      ["weight_scale_inv", f32s(scales, [down, along])],
    ]),
    weight: (o, i) =>
      fround(
        e4m3(number(codes, o * cols + i)) * number(scales, Math.floor(o / block[0]) * along + Math.floor(i / block[1])),
      ),
  };
}

function mlxFloats(mode: "mxfp4" | "nvfp4" | "mxfp8", rows: number, cols: number): QuantizedModule {
  const random = new Random(rows * 7 + cols);
  const [bits, size] = { mxfp4: [4, 32] as const, nvfp4: [4, 16] as const, mxfp8: [8, 32] as const }[mode];
  const codes = bits === 4 ? draw(random, rows * cols, 16) : eights(random, rows * cols);
  const groups = cols / size;
  const scales =
    mode === "nvfp4" ? draw(random, rows * groups, 127) : draw(random, rows * groups, 20).map((s) => 110 + s);
  const scaleOf = (code: number) => (mode === "nvfp4" ? e4m3(code) : 2 ** (code - 127));
  return {
    name: `mlx ${mode}, ${rows} × ${cols}`,
    rows,
    cols,
    config: { quantization: { mode, bits, group_size: size } },
    tensors: new Map([
      ["weight", tensor("U32", [rows, (cols * bits) / 32], stream(codes, bits))],
      ["scales", tensor("U8", [rows, groups], Uint8Array.from(scales))],
    ]),
    weight: (o, i) => {
      const code = number(codes, o * cols + i);
      return (bits === 4 ? e2m1(code) : e4m3(code)) * scaleOf(number(scales, o * groups + Math.floor(i / size)));
    },
  };
}

function bitsandbytes(rows: number, cols: number, blocksize: number, nested: boolean): QuantizedModule {
  const random = new Random(rows * 11 + cols);
  const count = rows * cols;
  const codes = draw(random, count, 16);
  const blocks = Math.ceil(count / blocksize);
  const map = floats(random, 16).map((v, i) => (i < 8 ? -v : v));
  const nestedMap = floats(random, 256);
  const nestedAbsmax = floats(random, Math.ceil(blocks / 256));
  const absmax = nested ? draw(random, blocks, 256) : floats(random, blocks);
  const offset = fround(0.375);
  const state = {
    quant_type: "nf4",
    blocksize,
    dtype: "float16",
    shape: [rows, cols],
    ...(nested ? { nested_blocksize: 256, nested_dtype: "float32", nested_offset: offset } : {}),
  };
  const json = new TextEncoder().encode(JSON.stringify(state));
  const bytes = stream(
    arranged(codes, (e) => e ^ 1, 2 * Math.ceil(count / 2)),
    4,
  );
  return {
    name: `bitsandbytes by ${blocksize}${nested ? ", nested" : ""}, ${rows} × ${cols}`,
    rows,
    cols,
    config: { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" } },
    tensors: new Map([
      ["weight", tensor("U8", [bytes.length, 1], bytes)],
      ["weight.absmax", nested ? tensor("U8", [blocks], Uint8Array.from(absmax)) : f32s(absmax, [blocks])],
      ["weight.quant_map", f32s(map, [16])],
      ["weight.quant_state.bitsandbytes__nf4", tensor("U8", [json.length], json)],
      ...(nested
        ? [
            ["weight.nested_quant_map", f32s(nestedMap, [256])] as const,
            ["weight.nested_absmax", f32s(nestedAbsmax, [nestedAbsmax.length])] as const,
          ]
        : []),
    ]),
    weight: (o, i) => {
      const block = Math.floor((o * cols + i) / blocksize);
      const stored = number(absmax, block);
      const scale = nested
        ? fround(fround(number(nestedMap, stored) * number(nestedAbsmax, Math.floor(block / 256))) + offset)
        : stored;
      return fround(number(map, number(codes, o * cols + i)) * scale);
    },
  };
}

function mlxAffine(rows: number, cols: number, bits: number, group: number): QuantizedModule {
  const random = new Random(rows * 13 + bits);
  const codes = draw(random, rows * cols, 2 ** bits);
  const groups = cols / group;
  const [scales, biases] = [halves(random, rows * groups), halves(random, rows * groups)];
  return {
    name: `mlx ${bits} bits, groups of ${group}, ${rows} × ${cols}`,
    rows,
    cols,
    config: { quantization: { bits, group_size: group } },
    tensors: new Map([
      ["weight", tensor("U32", [rows, (cols * bits) / 32], stream(codes, bits))],
      ["scales", f16s(scales, [rows, groups])],
      ["biases", f16s(biases, [rows, groups])],
    ]),
    weight: (o, i) => {
      const g = o * groups + Math.floor(i / group);
      return fround(number(scales, g) * number(codes, o * cols + i) + number(biases, g));
    },
  };
}

/** Rows and columns that are no multiples of blocks, runs, words or groups, where the format allows it. */
export const quantizedModules: readonly QuantizedModule[] = [
  gptq(72, 136, 4, 64, {}),
  gptq(40, 96, 4, 32, { v2: true }),
  gptq(48, 200, 4, -1, {}),
  gptq(36, 100, 8, -1, {}),
  gptq(44, 192, 8, 64, { sorted: true }),
  gptq(104, 256, 4, 32, { sorted: true, v2: true }),
  awq(56, 96, 32),
  awq(40, 320, 128),
  packed(70, 160, 4, 32, true),
  packed(45, 96, 4, 32, false),
  packed(33, 100, 4, null, true),
  packed(37, 72, 8, null, false),
  packed(50, 192, 8, 64, false),
  packed(9, 96, 3, 32, true),
  packed(9, 64, 6, null, true),
  int8(35, 45),
  fp8(70, 200, [32, 64]),
  fp8(130, 96, [128, 128]),
  fp8(61, 77, [64, 128]),
  mlxFloats("mxfp4", 41, 96),
  mlxFloats("nvfp4", 39, 80),
  mlxFloats("mxfp8", 33, 32),
  bitsandbytes(21, 64, 64, false),
  bitsandbytes(35, 72, 64, true),
  bitsandbytes(33, 96, 128, true),
  mlxAffine(35, 96, 2, 32),
  mlxAffine(35, 128, 3, 64),
  mlxAffine(65, 128, 5, 128),
  mlxAffine(7, 192, 6, 64),
  mlxAffine(3, 64, 8, 64),
  // Groups that no layout holds, and rows that begin within an element.
  gptq(48, 96, 4, 48, {}),
  gptq(36, 72, 8, 24, { sorted: true }),
  gptq(24, 96, 4, 16, { sorted: true, v2: true }),
  awq(40, 100, 40),
  packed(45, 96, 4, 16, false),
  packed(35, 72, 3, 48, true),
];

/** The same codes, zeros and scales in every packing of integers of 4 bits: one module, said four ways. */
export function onePacking(): QuantizedModule[] {
  const random = new Random(31);
  const [rows, cols, group] = [40, 96, 32];
  const groups = cols / group;
  const given = {
    codes: draw(random, rows * cols, 16),
    zeros: draw(random, rows * groups, 15).map((zero) => zero + 1), // GPTQ's first form has no 0
    scales: halves(random, rows * groups),
  };
  return [
    gptq(rows, cols, 4, group, {}, given),
    gptq(rows, cols, 4, group, { v2: true }, given),
    awq(rows, cols, group, given),
    packed(rows, cols, 4, group, false, given),
  ];
}

/** The module planned alone, as one matrix, or as `take` takes it. */
export async function planQuantized(
  { config, tensors, rows, cols }: QuantizedModule,
  take = (plan: WeightPlan, module: string): Matrix => plan.matrix(module, rows, cols),
): Promise<{ plan: WeightPlan; matrix: Matrix }> {
  const named = new Map([...tensors].map(([name, it]) => [`${MODULE}.${name}`, it]));
  const checkpoint = await openCheckpoint(memoryFolder({ "model.safetensors": safetensorsFile(named) }));
  const quantization = normalizeQuantization(fieldsOf("config.json", config));
  const plan = new WeightPlan(checkpoint, quantization, await readDetails(checkpoint, quantization));
  const matrix = take(plan, MODULE);
  plan.finish();
  return { plan, matrix };
}
