/** What a checkpoint format makes of a module: how it is stored on the GPU, and where its codes and group parameters lie in the file. */
import { bf16FromBits, f16FromBits } from "../../kernels/formats/halves.ts";
import { type LayoutName, paramPlaces, type ScaleType } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import type { ParamView, Storage, TensorView } from "../matrix.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";

/** A module whose tensors a format reads. */
export interface ModuleShape {
  readonly module: string;
  /** Rows (outputs) of the whole tensor, of all experts where it has all. */
  readonly rows: number;
  readonly cols: number;
  /** Rows of one expert, where the tensor has all experts in its first dimension. */
  readonly expertRows: number | undefined;
  /** Whether the plain tensor is (inputs, outputs), or the quantized one too. */
  readonly transposed: boolean | "quantized too";
  /** Name of the plain tensor. */
  readonly weight: string;
}

/** Where a format takes tensors from. */
export interface Tensors {
  has(name: string): boolean;
  /** "" where it is missing. */
  dtype(name: string): string;
  /** Undefined where it is missing, which is then reported with all others. */
  claim(name: string): CheckpointTensor | undefined;
  /** Takes a tensor that a module may have and no computation needs. */
  claimIfThere(name: string): CheckpointTensor | undefined;
  /** Its bytes, of the small ones that `isDetail` names; undefined where it is missing. */
  detail(name: string): Uint8Array | undefined;
}

/** A module as it will be stored. */
export interface StoredModule extends Storage {
  /** The checkpoint's format in words: "gptq 4 bits, groups of 128". */
  readonly format: string;
  readonly codes: TensorView;
  readonly params: readonly ParamView[];
  /** The same with a scale a row, where this one has scales that blocks of 32 rows share: for rows that are not whole blocks of the tensor's. */
  readonly byRow?: StoredModule;
  /** The same as f32s, which is stored where experts beside it are stored otherwise, or have an order of columns each. */
  unpacked?(): StoredModule;
}

/** How a checkpoint's weights are quantized. */
export interface Quantization {
  readonly method: string;
  /** All that it says, as text: two that say the same have the same. */
  readonly summary: string;
  /** Paths that it names and that must be modules: one under another prefix would silently get what is meant for all. */
  readonly names: readonly string[];
  /** Whether a tensor's bytes are wanted before anything is planned. */
  isDetail(name: string): boolean;
  /** The module as stored; null where it is plain; undefined where tensors are missing. */
  module(tensors: Tensors, shape: ModuleShape): StoredModule | null | undefined;
}

/** Plain dtypes and their layouts. */
export const PLAIN: Readonly<Record<string, LayoutName>> = { F32: "f32", F16: "f16", BF16: "bf16" };
const SCALES: Readonly<Record<string, ScaleType>> = { F32: "f32", F16: "f16", BF16: "bf16" };

const BITS: Readonly<Record<ScaleType, number>> = { f32: 32, f16: 16, bf16: 16, e8m0: 8, e4m3: 8 };

/** Columns that share a scale, in words. */
export const inGroups = (group: number | undefined): string =>
  group === undefined ? "a scale a row" : `groups of ${group}`;

/** What of a view differs from a row-major tensor of one element a column. */
type ViewOptions = Partial<Omit<TensorView, "tensor" | "bits" | "columns">>;

/** A tensor whose rows follow each other, `columns` elements each of which `stride` lie in a row of the file. */
export function rowMajor(
  tensor: CheckpointTensor,
  bits: number,
  columns: number,
  stride = columns,
  options: ViewOptions = {},
): TensorView {
  return {
    tensor,
    bits,
    columns,
    elementOrder: "plain",
    flip: 0,
    base: 0,
    rowTile: 1,
    rowTileStride: stride,
    rowStride: 0,
    columnTile: 1,
    columnTileStride: 1,
    columnStride: 0,
    outer: { by: "row", span: 1, step: stride, rows: 0, elements: 0 },
    ...options,
  };
}

/** A tensor (columns, rows), or a stack of them: the columns of `rows` rows follow each other. */
export function columnMajor(
  tensor: CheckpointTensor,
  bits: number,
  columns: number,
  rows: number,
  options: ViewOptions = {},
): TensorView {
  const elements = columns * rows;
  return rowMajor(tensor, bits, columns, columns, {
    rowTile: rows,
    rowTileStride: elements,
    rowStride: 1,
    columnTileStride: rows,
    outer: { by: "column", span: 1, step: rows, rows, elements },
    ...options,
  });
}

/** Parameters of a row's groups, at the places of the layout: scales, biases or zeros, and the factor of e4m3 scales. */
export interface ParamSources {
  readonly scale: TensorView;
  readonly offset?: TensorView | undefined;
  readonly factor?: TensorView | undefined;
}

/** Where the parameters of a module go. */
export function paramViews(storage: Storage, cols: number, { scale, offset, factor }: ParamSources): ParamView[] {
  const places = paramPlaces(layouts[storage.layout], { ...storage, cols });
  // A bf16 scale is the upper half of its f32.
  if (storage.sharedRows) return [{ view: scale, firstBit: 32 - scale.bits, stepBits: 32, sharedRows: true }];
  const at = (view: TensorView | undefined, place: { first: number; step: number } | undefined) =>
    view === undefined || place === undefined ? [] : [{ view, firstBit: place.first, stepBits: place.step }];
  const row = places.factor === undefined ? undefined : { first: places.factor, step: 32 };
  return [...at(scale, places.scale), ...at(offset, places.offset), ...at(factor, row)];
}

/** Bits of a scale of a type. */
export const scaleBits = (scaleType: ScaleType): number => BITS[scaleType];

/** The scale type of a tensor. Throws UnsupportedModelError for a dtype that scales do not have. */
export function scaleTypeOf(tensor: CheckpointTensor): ScaleType {
  const scaleType = SCALES[tensor.dtype];
  if (scaleType === undefined) throw wrongDtype(tensor, Object.keys(SCALES));
  return scaleType;
}

/** Numbers of a plain dtype, by their bytes. */
export function numbersFrom(bytes: Uint8Array, dtype: string): Float32Array<ArrayBuffer> {
  const { buffer } = bytes.slice();
  if (dtype === "F32") return new Float32Array(buffer);
  return Float32Array.from(new Uint16Array(buffer), dtype === "F16" ? f16FromBits : bf16FromBits);
}

/** Throws ModelFormatError where a tensor has another shape. Leading dimensions of a stack of experts count as one. */
export function checkShape(tensor: CheckpointTensor, want: readonly number[], because = "config.json"): void {
  const is = tensor.shape;
  const flat = is.length === want.length + 1 ? [(is[0] ?? 0) * (is[1] ?? 0), ...is.slice(2)] : is;
  if (flat.length === want.length && flat.every((size, i) => size === want[i])) return;
  const message = `${tensor.name}: shape (${is.join(", ")}), expected (${want.join(", ")}) from ${because}`;
  throw new ModelFormatError("TENSOR_SHAPE", message, { tensor: tensor.name });
}

/** Throws UnsupportedModelError where a tensor has none of the dtypes. */
export function checkDtype(tensor: CheckpointTensor, ...want: readonly string[]): void {
  if (!want.includes(tensor.dtype)) throw wrongDtype(tensor, want);
}

function wrongDtype(tensor: CheckpointTensor, want: readonly string[]): UnsupportedModelError {
  return new UnsupportedModelError(`${tensor.name}: dtype ${tensor.dtype}, expected ${want.join(" or ")}`);
}
