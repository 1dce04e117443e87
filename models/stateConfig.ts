/** What config.json says of layers that keep a state instead of keys and values. */
import { DELTA_DIM } from "../kernels/state/delta_rule.ts";
import { type Fields, listField, optionalInteger, refused } from "./configChecks.ts";
import type { DeltaShape } from "./ops/recur.ts";

/** Short convolutions. */
export interface ShortConvConfig {
  /** One a layer: whether it has one in attention's place. */
  readonly layers: readonly boolean[];
  /** Tokens that a convolution sees. */
  readonly taps: number;
  /** Whether the convolution and its projections have biases. */
  readonly bias: boolean;
}

/** Linear attention by the gated delta rule. */
export interface DeltaNetConfig extends DeltaShape {
  readonly layers: readonly boolean[];
  readonly taps: number;
}

// Above these a number is a mistake or an attack: 4 taps, 64 heads and vectors of 128 are published.
const TAPS = { min: 1, max: 64 };
const HEADS = { min: 1, max: 2 ** 10 };
const DIM = { min: 1, max: DELTA_DIM };

/** How many tokens a convolution sees. */
export const readTaps = (fields: Fields, name: string, otherwise: number): number =>
  optionalInteger(fields, name, TAPS) ?? otherwise;

/** Layers of a type: as `layer_types` says, else as `otherwise`. Whether the types are known is `readWindows`'s to check. */
export function layersOf(
  fields: Fields,
  type: string,
  layers: number,
  otherwise: (layer: number) => boolean,
): readonly boolean[] {
  const types = listField(fields, "layer_types");
  return Array.from({ length: layers }, (_, layer) => (types === undefined ? otherwise(layer) : types[layer] === type));
}

/** Qwen's delta net. */
export function readDeltaNet(fields: Fields, layers: readonly boolean[]): DeltaNetConfig {
  const keyHeads = optionalInteger(fields, "linear_num_key_heads", HEADS) ?? 16;
  const valueHeads = optionalInteger(fields, "linear_num_value_heads", HEADS) ?? 32;
  if (valueHeads % keyHeads !== 0)
    throw refused(fields, "linear_num_value_heads", `a multiple of linear_num_key_heads, ${keyHeads}`);
  return {
    layers,
    taps: readTaps(fields, "linear_conv_kernel_dim", 4),
    keyHeads,
    valueHeads,
    keyDim: optionalInteger(fields, "linear_key_head_dim", DIM) ?? 128,
    valueDim: optionalInteger(fields, "linear_value_head_dim", DIM) ?? 128,
  };
}
