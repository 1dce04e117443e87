/** How a checkpoint's weights are quantized, wherever a tool writes it: one reader a method, everything else refused. */
import { contradiction, type Fields, field, objectField, textField, unsupported } from "./configChecks.ts";
import { readAwq } from "./formats/awq.ts";
import { readBitsandbytes } from "./formats/bitsandbytes.ts";
import { readCompressedTensors } from "./formats/compressedTensors.ts";
import { readFp8 } from "./formats/fp8.ts";
import { readGptq } from "./formats/gptq.ts";
import { readMlx } from "./formats/mlx.ts";
import { readMxfp4 } from "./formats/mxfp4.ts";
import type { Quantization } from "./formats/stored.ts";

/** A method is a row: the name in `quant_method` and its reader. MLX writes no `quant_method`. */
const METHODS: Readonly<Record<string, (fields: Fields) => Quantization>> = {
  mlx: readMlx,
  gptq: readGptq,
  awq: readAwq,
  "compressed-tensors": readCompressedTensors,
  fp8: readFp8,
  mxfp4: readMxfp4,
  bitsandbytes: readBitsandbytes,
};

/** MLX, transformers, and compressed-tensors before transformers took it up. */
const KEYS = ["quantization", "quantization_config", "compression_config"] as const;

/**
 * The quantization of a config, or null for plain weights.
 *
 * Throws UnsupportedModelError, naming field and value, for every method, width and option that ingle does not read: a checkpoint is never
 * decoded by a guess. Throws ModelFormatError where two of the keys are there and differ.
 */
export function normalizeQuantization(config: Fields): Quantization | null {
  const stated = KEYS.flatMap((key) => {
    const fields = objectField(config, key);
    return fields === undefined ? [] : [{ key, quantization: readMethod(fields) }];
  });
  const [first] = stated;
  if (first === undefined) return null;
  const other = stated.find(({ quantization }) => quantization.summary !== first.quantization.summary);
  if (other !== undefined) throw contradiction(config, first.key, other.key);
  return first.quantization;
}

function readMethod(fields: Fields): Quantization {
  const method = field(fields, "quant_method") === undefined ? "mlx" : textField(fields, "quant_method");
  const read = method !== undefined && Object.hasOwn(METHODS, method) ? METHODS[method] : undefined;
  if (read === undefined)
    throw unsupported(fields, "quant_method", `${Object.keys(METHODS).join(", ")}, or none as MLX writes it`);
  return read(fields);
}
