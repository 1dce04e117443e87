/** How MLX stores modules, by the fields of config.json: width, group and mode. */
import { type Fields, integerField, textField, unsupported } from "../configChecks.ts";

/** Widths of integer codes. */
export type AffineBits = 2 | 3 | 4 | 5 | 6 | 8;

/** How a module is stored. */
export interface MlxScheme {
  readonly mode: "affine" | "mxfp4" | "nvfp4" | "mxfp8";
  readonly bits: AffineBits;
  readonly group_size: number;
}

const BITS: readonly AffineBits[] = [2, 3, 4, 5, 6, 8];
const GROUP_SIZES = [32, 64, 128] as const;
/** The one width that each floating mode has. */
const FLOAT_MODES = {
  mxfp4: { bits: 4, group_size: 32 },
  nvfp4: { bits: 4, group_size: 16 },
  mxfp8: { bits: 8, group_size: 32 },
} as const;

/** Reads `bits`, `group_size` and `mode`. Throws UnsupportedModelError for others than MLX has. */
export function readScheme(fields: Fields): MlxScheme {
  const mode = textField(fields, "mode") ?? "affine"; // not written before MLX had a second one
  if (mode === "affine")
    return { mode, bits: oneOf(fields, "bits", BITS), group_size: oneOf(fields, "group_size", GROUP_SIZES) };
  if (mode !== "mxfp4" && mode !== "nvfp4" && mode !== "mxfp8")
    throw unsupported(fields, "mode", '"affine", "mxfp4", "nvfp4", "mxfp8"');
  const { bits, group_size } = FLOAT_MODES[mode];
  return { mode, bits: oneOf(fields, "bits", [bits]), group_size: oneOf(fields, "group_size", [group_size]) };
}

function oneOf<T extends number>(fields: Fields, key: string, choices: readonly T[]): T {
  const value = integerField(fields, key, { min: 1, max: 2 ** 20 });
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw unsupported(fields, key, choices.join(", "));
  return choice;
}
