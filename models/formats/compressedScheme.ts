/** Schemes of compressed-tensors: the `weights` of a group of config.json, checked field by field. */
import {
  booleanField,
  type Fields,
  field,
  integerField,
  objectField,
  textField,
  unsupported,
} from "../configChecks.ts";
import { blockSize } from "./fp8.ts";

const FORMATS = [
  "pack-quantized",
  "int-quantized",
  "float-quantized",
  "nvfp4-pack-quantized",
  "mxfp4-pack-quantized",
] as const;
const STRATEGIES = ["tensor", "channel", "group", "block", "tensor_group"] as const;
const BITS = [2, 3, 4, 5, 6, 8] as const;

/** How the weights of a group's modules are stored. */
export interface WeightScheme {
  readonly format: (typeof FORMATS)[number];
  readonly bits: (typeof BITS)[number];
  readonly strategy: (typeof STRATEGIES)[number];
  /** Of strategies by group. */
  readonly group: number | undefined;
  readonly block: readonly [number, number] | undefined;
  readonly symmetric: boolean;
  /** Whether columns may lie in any group, so that `weight_g_idx` must be there. */
  readonly anyOrder: boolean;
}

/** Reads the weights of `group`; its format is its own or that of all. Throws UnsupportedModelError by field and value. */
export function readWeights(all: Fields, group: Fields): WeightScheme {
  const format = readFormat(field(group, "format") === undefined ? all : group);
  const weights = objectField(group, "weights");
  if (weights === undefined) throw unsupported(group, "weights", "an object");
  const bits = oneOf(weights, "num_bits", BITS);
  const type = textField(weights, "type") ?? "int";
  const floating = format !== "pack-quantized" && format !== "int-quantized";
  if (type !== (floating ? "float" : "int"))
    throw unsupported(weights, "type", `"${floating ? "float" : "int"}" with format ${format}`);
  if (booleanField(weights, "dynamic") === true) throw unsupported(weights, "dynamic", "false");
  const stated = textField(weights, "strategy");
  const size = field(weights, "group_size");
  const strategy = STRATEGIES.find(
    (name) => name === (stated ?? (size === undefined || size === -1 ? "tensor" : "group")),
  );
  if (strategy === undefined) throw unsupported(weights, "strategy", STRATEGIES.join(", "));
  const grouped = strategy === "group" || strategy === "tensor_group";
  const scheme: WeightScheme = {
    format,
    bits,
    strategy,
    group: grouped ? integerField(weights, "group_size", { min: 1, max: 2 ** 24 }) : undefined,
    block: strategy === "block" ? blockSize(weights, "block_structure") : undefined,
    symmetric: booleanField(weights, "symmetric") ?? true,
    anyOrder: readOrder(weights),
  };
  checkScheme(weights, scheme);
  return scheme;
}

/** `actorder`: by group, whose columns are stored in no order, or by weight, whose are. */
function readOrder(weights: Fields): boolean {
  const value = field(weights, "actorder") ?? false;
  if (value === true || value === "group" || value === "dynamic") return true;
  if (value === false || value === "weight" || value === "static") return false;
  throw unsupported(weights, "actorder", '"group", "weight"');
}

function readFormat(fields: Fields): WeightScheme["format"] {
  const text = textField(fields, "format");
  const format = FORMATS.find((name) => name === text);
  if (format === undefined) throw unsupported(fields, "format", FORMATS.join(", "));
  return format;
}

/** What fields say together. */
function checkScheme(weights: Fields, { format, bits, strategy, group, symmetric }: WeightScheme): void {
  const want = {
    "int-quantized": 8,
    "float-quantized": 8,
    "nvfp4-pack-quantized": 4,
    "mxfp4-pack-quantized": 4,
  } as const;
  if (format !== "pack-quantized" && bits !== want[format])
    throw unsupported(weights, "num_bits", `${want[format]} with format ${format}`);
  if (!symmetric && (format === "float-quantized" || format.endsWith("fp4-pack-quantized")))
    throw unsupported(weights, "symmetric", `true with format ${format}`);
  if (!symmetric && bits !== 4 && bits !== 8) throw unsupported(weights, "symmetric", `true with num_bits ${bits}`);
  const groups = { "nvfp4-pack-quantized": 16, "mxfp4-pack-quantized": 32 } as const;
  if (format === "nvfp4-pack-quantized" || format === "mxfp4-pack-quantized") {
    if (group !== groups[format]) throw unsupported(weights, "group_size", `${groups[format]} with format ${format}`);
    return;
  }
  if (format !== "float-quantized" && (strategy === "block" || strategy === "tensor_group"))
    throw unsupported(weights, "strategy", `tensor, channel, group with format ${format}`);
}

function oneOf<T extends number>(fields: Fields, key: string, choices: readonly T[]): T {
  const value = integerField(fields, key, { min: 1, max: 64 });
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw unsupported(fields, key, choices.join(", "));
  return choice;
}
