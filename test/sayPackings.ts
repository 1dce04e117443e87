/** Quantized modules said in another packing: the same codes and scales by another format's rules, and config.json with them. */
import {
  fromAwq,
  fromCompressed,
  fromGptq,
  type Integers,
  type Module,
  toAwq,
  toGptq,
  toMlx,
  toPacked,
} from "./packedIntegers.ts";
import type { Saying } from "./saying.ts";
import { floats, type TinyModel, type TinyTensor } from "./tinyModel.ts";

type Config = TinyModel["config"];

const isObject = (value: unknown): value is Config => typeof value === "object" && value !== null;

/** The fields that say how a model is quantized. */
function quantizationOf({ config }: TinyModel): Config {
  const found = config.quantization ?? config.quantization_config;
  if (!isObject(found)) throw new RangeError("not quantized");
  return found;
}

/** The one scheme of compressed-tensors; null where there are more, or another format. */
function schemeOf(quantization: Config): (Config & { format: unknown }) | null {
  const groups = isObject(quantization.config_groups) ? Object.values(quantization.config_groups) : [];
  const [group] = groups;
  if (groups.length !== 1 || !isObject(group) || !isObject(group.weights)) return null;
  return { ...group.weights, format: group.format ?? quantization.format };
}

/** Modules that have a tensor of this name, with their tensors. */
function modulesWith({ tensors }: TinyModel, name: string): Map<string, Module> {
  const paths = [...tensors.keys()].flatMap((it) => (it.endsWith(`.${name}`) ? [it.slice(0, -name.length - 1)] : []));
  return new Map(
    paths.map((path) => {
      const own = [...tensors].filter(([it]) => it.startsWith(`${path}.`));
      return [path, new Map(own.map(([it, tensor]) => [it.slice(path.length + 1), tensor]))];
    }),
  );
}

/** The model with other tensors for some modules, and another quantization. */
function replaced(model: TinyModel, modules: ReadonlyMap<string, Module>, quantization: Config): TinyModel {
  const kept = [...model.tensors].filter(([name]) => ![...modules.keys()].some((path) => name.startsWith(`${path}.`)));
  const added = [...modules].flatMap(([path, own]) => [...own].map(([name, it]) => [`${path}.${name}`, it] as const));
  const { quantization: _, quantization_config: __, ...config } = model.config;
  return { config: { ...config, ...quantization }, tensors: new Map([...kept, ...added]) };
}

/** Modules of integer codes, by path; null where there are none, or of several kinds. */
function integersOf(model: TinyModel): Map<string, Integers> | null {
  const quantization = quantizationOf(model);
  const each = (name: string, read: (module: Module, path: string) => Integers) =>
    new Map([...modulesWith(model, name)].map(([path, module]) => [path, read(module, path)]));
  if (quantization.quant_method === "gptq") {
    const add = quantization.checkpoint_format === "gptq_v2" ? 0 : 1;
    return each("qweight", (module) => fromGptq(module, { bits: Number(quantization.bits), add }));
  }
  if (quantization.quant_method === "awq") return each("qweight", fromAwq);
  const scheme = schemeOf(quantization);
  if (scheme === null || scheme.type !== "int") return null;
  const bits = Number(scheme.num_bits);
  return each("weight_scale", (module) => {
    const packed = module.get("weight_packed")?.shape[1];
    const cols = packed === undefined ? (module.get("weight")?.shape[1] ?? Number.NaN) : (packed * 32) / bits;
    return fromCompressed(module, { bits, cols });
  });
}

const methodOf = (model: TinyModel) => quantizationOf(model).quant_method;

/** A saying for models of integer codes. */
function ofIntegers(
  name: string,
  applies: (model: TinyModel, all: readonly Integers[]) => boolean,
  put: (it: Integers) => Module,
  quantization: (it: Integers) => Config,
): Saying {
  return {
    name,
    say(model) {
      const modules = integersOf(model);
      const [first] = modules?.values() ?? [];
      if (modules === null || first === undefined || !applies(model, [...modules.values()])) return null;
      return replaced(model, new Map([...modules].map(([path, it]) => [path, put(it)])), quantization(first));
    },
  };
}

const gptqConfig =
  (checkpoint_format: string) =>
  ({ bits, group, g_idx }: Integers): Config => ({
    quantization_config: {
      quant_method: "gptq",
      bits,
      group_size: group,
      desc_act: g_idx !== undefined,
      checkpoint_format,
    },
  });

const packedConfig =
  (symmetric: boolean) =>
  ({ bits, group, g_idx }: Integers): Config => {
    const actorder = g_idx === undefined ? {} : { actorder: "group" };
    const weights = { num_bits: bits, type: "int", symmetric, strategy: "group", group_size: group, ...actorder };
    const config_groups = { group_0: { targets: ["Linear"], weights } };
    return { quantization_config: { quant_method: "compressed-tensors", format: "pack-quantized", config_groups } };
  };

const zerosWithin = (all: readonly Integers[], least: number, most: (bits: number) => number): boolean =>
  all.every(({ zeros, bits }) => zeros.every((zero) => zero >= least && zero <= most(bits)));
const isSymmetric = (all: readonly Integers[]) =>
  all.every(({ zeros, bits }) => zeros.every((zero) => zero === 2 ** (bits - 1)));
const fits = (bits: number) => 2 ** bits - 1;

/** Every packing of integer codes whose weights are the same bits. */
export const integerPackings: readonly Saying[] = [
  ofIntegers(
    "as GPTQ, first form",
    (model, all) => quantizationOf(model).checkpoint_format !== "gptq" && zerosWithin(all, 1, (bits) => 2 ** bits),
    (it) => toGptq(it, 1),
    gptqConfig("gptq"),
  ),
  ofIntegers(
    "as GPTQ, second form",
    (model, all) => quantizationOf(model).checkpoint_format !== "gptq_v2" && zerosWithin(all, 0, fits),
    (it) => toGptq(it, 0),
    gptqConfig("gptq_v2"),
  ),
  ofIntegers(
    "as AWQ",
    (model, all) =>
      methodOf(model) !== "awq" &&
      zerosWithin(all, 0, fits) &&
      all.every(({ bits, g_idx }) => bits === 4 && g_idx === undefined),
    toAwq,
    ({ group }) => ({
      quantization_config: { quant_method: "awq", bits: 4, group_size: group, version: "gemm", zero_point: true },
    }),
  ),
  ofIntegers(
    "as compressed-tensors, with zeros",
    (_, all) => zerosWithin(all, 0, fits),
    (it) => toPacked(it, false),
    packedConfig(false),
  ),
  ofIntegers(
    "as compressed-tensors, symmetric",
    (_, all) => isSymmetric(all),
    (it) => toPacked(it, true),
    packedConfig(true),
  ),
];

/** MLX has biases and not zeros: equal weights, but sums in another order. */
export const asMlx: Saying = ofIntegers(
  "as MLX",
  (_, all) => isSymmetric(all) && all.every(({ group, g_idx }) => [32, 64, 128].includes(group) && g_idx === undefined),
  toMlx,
  ({ bits, group }) => ({ quantization: { bits, group_size: group } }),
);

/** A tensor under a name and dtype that another format has for the same bytes. */
const as = (tensor: TinyTensor | undefined, dtype: TinyTensor["dtype"], shape: readonly number[]): TinyTensor => {
  if (tensor === undefined) throw new RangeError("a tensor is missing");
  return { ...tensor, dtype, shape };
};

/** Floats of 4 bits: MLX's modes as compressed-tensors has them, and back. */
export const floatPackings: readonly Saying[] = [
  {
    name: "MLX floats as compressed-tensors",
    say(model) {
      const { mode } = quantizationOf(model);
      if (mode !== "mxfp4" && mode !== "nvfp4") return null;
      const modules = [...modulesWith(model, "scales")].map(([path, own]): [string, Module] => {
        const [rows = 0, words = 0] = own.get("weight")?.shape ?? [];
        const groups = own.get("scales")?.shape ?? [];
        const one = floats(new Float32Array([1]), "F32", [1]);
        const tensors: [string, TinyTensor][] = [
          ["weight_packed", as(own.get("weight"), "U8", [rows, 4 * words])],
          ["weight_scale", as(own.get("scales"), mode === "mxfp4" ? "U8" : "F8_E4M3", groups)],
        ];
        return [path, new Map(mode === "mxfp4" ? tensors : [...tensors, ["weight_global_scale", one]])];
      });
      const [strategy, group_size] = mode === "mxfp4" ? ["group", 32] : ["tensor_group", 16];
      const weights = { num_bits: 4, type: "float", symmetric: true, strategy, group_size };
      const config_groups = { group_0: { targets: ["Linear"], weights } };
      const format = `${mode}-pack-quantized`;
      const quantization_config = { quant_method: "compressed-tensors", format, config_groups };
      return replaced(model, new Map(modules), { quantization_config });
    },
  },
  {
    name: "compressed-tensors' mxfp4 as MLX",
    say(model) {
      if (schemeOf(quantizationOf(model))?.format !== "mxfp4-pack-quantized") return null;
      const modules = [...modulesWith(model, "weight_packed")].map(([path, own]): [string, Module] => {
        const [rows = 0, bytes = 0] = own.get("weight_packed")?.shape ?? [];
        const groups = own.get("weight_scale")?.shape ?? [];
        const weight = as(own.get("weight_packed"), "U32", [rows, bytes / 4]);
        return [
          path,
          new Map([["weight", weight] as const, ["scales", as(own.get("weight_scale"), "U8", groups)] as const]),
        ];
      });
      return replaced(model, new Map(modules), { quantization: { mode: "mxfp4", bits: 4, group_size: 32 } });
    },
  },
  {
    name: "FP8 blocks as compressed-tensors",
    say(model) {
      const { quant_method, weight_block_size, modules_to_not_convert: ignore = [] } = quantizationOf(model);
      if (quant_method !== "fp8") return null;
      const weights = {
        num_bits: 8,
        type: "float",
        symmetric: true,
        strategy: "block",
        block_structure: weight_block_size,
      };
      const config_groups = { group_0: { targets: ["Linear"], weights } };
      const rest = { quant_method: "compressed-tensors", format: "float-quantized", ignore, config_groups };
      return replaced(model, otherScales(model, "weight_scale_inv", "weight_scale"), { quantization_config: rest });
    },
  },
  {
    name: "compressed-tensors' FP8 as FP8 blocks",
    say(model) {
      const scheme = schemeOf(quantizationOf(model));
      if (scheme?.format !== "float-quantized" || scheme.strategy === "channel") return null;
      const block = scheme.strategy === "block" ? { weight_block_size: scheme.block_structure } : {};
      const quantization_config = { quant_method: "fp8", activation_scheme: "dynamic", ...block };
      return replaced(model, otherScales(model, "weight_scale", "weight_scale_inv"), { quantization_config });
    },
  },
];

/** Modules whose scales have another name. */
function otherScales(model: TinyModel, from: string, to: string): Map<string, Module> {
  const modules = [...modulesWith(model, from)].map(([path, own]): [string, Module] => {
    const kept = [...own].filter(([name]) => name !== from && !name.startsWith("input_"));
    const scale = own.get(from);
    return [path, new Map(scale === undefined ? kept : [...kept, [to, scale]])];
  });
  return new Map(modules);
}

/** The same fields under another key, and under two at once: what every format can say. */
export const statedTwice: Saying = {
  name: "stated under two keys",
  say(model) {
    const stated = quantizationOf(model);
    return { ...model, config: { ...model.config, quantization_config: stated, compression_config: stated } };
  },
};
