/** Matrices as a family's file names them: planned from the checkpoint's headers, filled while the weights stream in. */
import type { LayoutName, MatrixShape } from "../kernels/formats/layout.ts";
import type { ElementOrder } from "../kernels/repack.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** Rows of a matrix that lie in one pair of buffers, since no binding may be larger than the device's limit. */
export interface Shard {
  /** In blocks of 32 stored rows. */
  readonly firstBlock: number;
  readonly blocks: number;
  readonly words: GPUBuffer;
  readonly scales: GPUBuffer | undefined;
}

/** Rows of a tensor that belong to one projection: its row r is the tensor's row first + ⌊r / take⌋ · period + r mod take. */
export interface RowSlice {
  readonly first: number;
  readonly take: number;
  readonly period: number;
  /** Rows of the whole tensor. */
  readonly of: number;
}

/**
 * Where the elements of a tensor lie, in elements of `bits` bits from its first byte's low bits up: row t and column c are at
 * base + ⌊t / rowTile⌋ · rowTileStride + (t mod rowTile) · rowStride, plus the same of the column.
 */
export interface TensorView {
  readonly tensor: CheckpointTensor;
  readonly bits: number;
  readonly elementOrder: ElementOrder;
  /** Bits of an element to turn over. */
  readonly flip: number;
  readonly base: number;
  readonly rowTile: number;
  readonly rowTileStride: number;
  readonly rowStride: number;
  readonly columnTile: number;
  readonly columnTileStride: number;
  readonly columnStride: number;
  /** Columns (of codes) or groups (of group parameters) that it has. */
  readonly columns: number;
  /** Where the file may be cut: `step` elements are `span` whole rows, or `span` columns of all rows. */
  readonly outer: {
    readonly by: "row" | "column";
    readonly span: number;
    readonly step: number;
    /** By columns: rows and elements of one matrix of a stack; of the only one, where there is no stack. */
    readonly rows: number;
    readonly elements: number;
    /** Columns of the file before those of the view. */
    readonly skip?: number;
  };
}

/** A group parameter of every row: where it goes in the row's words. */
export interface ParamView {
  readonly view: TensorView;
  readonly firstBit: number;
  readonly stepBits: number;
  /** Whether the rows of a block share it: then its groups lie behind each other in the block's words. */
  readonly sharedRows?: true | undefined;
}

/** One projection's tensors and where its rows go among the stored rows. */
export interface Part {
  readonly module: string;
  readonly rows: number;
  readonly slice: RowSlice;
  readonly firstBlock: number;
  readonly blockStride: number;
  readonly codes: TensorView;
  readonly params: readonly ParamView[];
}

/** How a matrix is stored. Equal for all parts of a fused one. */
export interface Storage extends Omit<MatrixShape, "rows" | "cols"> {
  readonly layout: LayoutName;
  /** Column c of the stored rows is column order[c] of the input: of matrices whose columns are sorted by group. */
  readonly order?: Uint32Array<ArrayBuffer> | undefined;
}

/** A stored matrix: several projections of one input may be fused in it. */
export interface Matrix extends Storage {
  readonly name: string;
  /** The checkpoint's format in words, of its first part. */
  readonly format?: string;
  readonly cols: number;
  /** Blocks of 32 stored rows, padding included. */
  readonly blocks: number;
  /** Blocks that must stay in one shard: 2 where gate and up alternate, all of an expert's in a stack of experts. */
  readonly unit: number;
  readonly parts: readonly Part[];
  /** Where its table of numbers lies in the buffer of norms and biases. */
  readonly tableAt?: number | undefined;
  /** `order` on the GPU, once the weights are loaded. */
  orderBuffer?: GPUBuffer | undefined;
  /** Empty until the weights are loaded. */
  shards: readonly Shard[];
}
