/** Matrices as a family's file names them: planned from the checkpoint's headers, filled while the weights stream in. */
import type { LayoutName, ScaleType } from "../kernels/formats/layout.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** Rows of a matrix that lie in one pair of buffers, since no binding may be larger than the device's limit. */
export interface Shard {
  /** In blocks of 32 stored rows. */
  readonly firstBlock: number;
  readonly blocks: number;
  readonly words: GPUBuffer;
  readonly scales: GPUBuffer | undefined;
}

/** One tensor (or weight, scales and biases) of the checkpoint and where its rows go among the stored rows. */
export interface Part {
  readonly module: string;
  readonly rows: number;
  readonly firstBlock: number;
  readonly blockStride: number;
  readonly weight: CheckpointTensor;
  readonly scales: CheckpointTensor | undefined;
  readonly biases: CheckpointTensor | undefined;
}

/** How a matrix is stored. Equal for all parts of a fused one. */
export interface Storage {
  readonly layout: LayoutName;
  /** Columns a scale; 32 where the layout has none. */
  readonly group: number;
  readonly scaleType: ScaleType;
}

/** A stored matrix: several projections of one input may be fused in it. */
export interface Matrix extends Storage {
  readonly name: string;
  readonly cols: number;
  /** Blocks of 32 stored rows, padding included. */
  readonly blocks: number;
  /** Blocks that must stay in one shard: 2 where gate and up alternate. */
  readonly unit: number;
  readonly parts: readonly Part[];
  /** Empty until the weights are loaded. */
  shards: readonly Shard[];
}
