/** What a safetensors file says of its tensors. */
import { ModelFormatError } from "../errors.ts";
import { escapeName } from "./escape.ts";

/** Bits of one element, for every dtype of the format. */
export const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** An element type of the format, in its own spelling. */
export type Dtype = keyof typeof DTYPE_BITS;

/** One tensor of a file. */
export interface TensorInfo {
  /** As stored: unsafe to print without `escapeName`. */
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Byte offsets [begin, end) in the file, not in its data section. They need not be aligned to the element. */
  readonly begin: number;
  readonly end: number;
}

/** The header of a file, checked against the file's size. Names are Map keys, never properties. */
export interface SafetensorsHeader {
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** Elements of a shape: 1 for rank 0, 0 where any dimension is 0, Infinity past 2^53 - 1. */
export function elementCount(shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  let count = 1;
  for (const size of shape) {
    count *= size; // rounds only past 2^53, which is found right here
    if (count > Number.MAX_SAFE_INTEGER) return Number.POSITIVE_INFINITY;
  }
  return count;
}

/** An error of a file, or of one of its tensors. */
export function tensorError(
  file: string,
  code: string,
  tensor: string | undefined,
  message: string,
  cause?: unknown,
): ModelFormatError {
  const where = tensor === undefined ? file : `${file}: tensor "${escapeName(tensor)}"`;
  const options = { ...(cause === undefined ? {} : { cause }), ...(tensor === undefined ? {} : { tensor }) };
  return new ModelFormatError(code, `${where}: ${message}`, options);
}
