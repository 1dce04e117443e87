/**
 * The weight plan: what a family takes from a checkpoint, known from headers alone.
 *
 * A family asks for matrices and vectors by the hub's names and gets handles; nothing is read or allocated yet, so that
 * what is missing, left over or of another shape is said first, and the memory needed is a number.
 */
import {
  BLOCK_COLS,
  BLOCK_ROWS,
  type LayoutName,
  paddedRows,
  planes,
  runCount,
  type ScaleType,
} from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";
import type { Matrix, Part, Storage } from "./matrix.ts";
import { type Quantization, quantizationOf, unmatchedModules } from "./quantization.ts";
import type { Checkpoint, CheckpointTensor } from "./weights/checkpoint.ts";
import { TensorClaims } from "./weights/claims.ts";

/** A vector in the model's f32 buffer of norms, biases and sinks. */
export interface Vector {
  /** In f32s from the buffer's beginning. */
  readonly offset: number;
}

/** A tensor of the checkpoint and where its elements go in the f32 buffer. */
export interface VectorPart {
  readonly tensor: CheckpointTensor;
  /** Element i goes to `at(i)`. */
  at(index: number): number;
}

/** A projection to fuse: module path and rows. */
export interface Projection {
  readonly module: string;
  readonly rows: number;
}

/** Name of what stands in for a tensor that is not there. */
const MISSING = "";

const PLAIN: Readonly<Record<string, LayoutName>> = { F32: "f32", F16: "f16", BF16: "bf16" };
const SCALES: Readonly<Record<string, ScaleType>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Claims tensors and lays matrices and vectors out; `finish` checks that the checkpoint was used up. */
export class WeightPlan {
  readonly #claims: TensorClaims;
  readonly #quantization: Quantization | null;
  readonly #location: string;
  readonly #modules = new Set<string>();
  readonly matrices: Matrix[] = [];
  readonly vectors: VectorPart[] = [];
  /** f32s of the buffer of norms and biases. */
  auxLength = 0;

  constructor(checkpoint: Checkpoint, quantization: Quantization | null) {
    this.#claims = new TensorClaims(checkpoint);
    this.#quantization = quantization;
    this.#location = checkpoint.location;
  }

  has(name: string): boolean {
    return this.#claims.has(name);
  }

  /** One projection as one matrix. */
  matrix(module: string, rows: number, cols: number): Matrix {
    return this.#add(module, [this.#part({ module, rows }, cols, 0, 1)], cols, 1);
  }

  /**
   * Projections of one input behind each other, each from a whole block on: one matrix where they are stored alike, else
   * one each, in order. The stored row at which projection i begins is the sum of the padded rows before it.
   */
  stacked(projections: readonly Projection[], cols: number): Matrix[] {
    const parts = projections.map((projection) => this.#part(projection, cols, 0, 1));
    const runs: Part[][] = [];
    for (const part of parts) {
      const last = runs.at(-1);
      if (last?.[0] !== undefined && sameStorage(this.#storage(last[0], cols), this.#storage(part, cols)))
        last.push(part);
      else runs.push([part]);
    }
    return runs.map((run) => {
      let block = 0;
      const placed = run.map((part) => {
        const firstBlock = block;
        block += paddedRows(part.rows) / BLOCK_ROWS;
        return { ...part, firstBlock };
      });
      return this.#add(run.map(({ module }) => module).join(" + "), placed, cols, 1);
    });
  }

  /** Two projections of one size by alternate blocks of 32 rows: gate and up. */
  interleaved(gate: string, up: string, rows: number, cols: number): Matrix {
    const parts = [this.#part({ module: gate, rows }, cols, 0, 2), this.#part({ module: up, rows }, cols, 1, 2)];
    const [a, b] = parts.map((part) => this.#storage(part, cols));
    const missing = parts.some(({ weight }) => weight.name === MISSING); // `finish` reports it
    if (!missing && a !== undefined && b !== undefined && !sameStorage(a, b)) {
      const [is, other] = [describe(b), describe(a)];
      throw new UnsupportedModelError(`${up}: stored as ${is}, expected ${other} as ${gate}; quantize both alike`);
    }
    return this.#add(`${gate} + ${up}`, parts, cols, 2);
  }

  /** A vector of `length` elements, with zeros behind up to whole blocks. */
  vector(name: string, length: number): Vector {
    return this.#vector([{ name, length, at: (i) => i }], paddedRows(length));
  }

  /** Biases in the order of the stored rows of `stacked`; undefined where `present` is false. */
  stackedBias(projections: readonly Projection[], present: boolean): Vector | undefined {
    if (!present) return undefined;
    let row = 0;
    const parts = projections.map(({ module, rows }) => {
      const first = row;
      row += paddedRows(rows);
      return { name: `${module}.bias`, length: rows, at: (i: number) => first + i };
    });
    return this.#vector(parts, row);
  }

  /** Biases in the order of the stored rows of `interleaved`. */
  interleavedBias(gate: string, up: string, rows: number, present: boolean): Vector | undefined {
    if (!present) return undefined;
    const parts = [gate, up].map((module, part) => {
      const at = (i: number) => (Math.floor(i / BLOCK_ROWS) * 2 + part) * BLOCK_ROWS + (i % BLOCK_ROWS);
      return { name: `${module}.bias`, length: rows, at };
    });
    return this.#vector(parts, 2 * paddedRows(rows));
  }

  /** Throws ModelFormatError where tensors are missing or left over; `ignored` names more that may be left. */
  finish(ignored?: (name: string) => boolean): void {
    this.#claims.finish(ignored);
    const [unmatched] = unmatchedModules(this.#quantization, this.#modules);
    if (unmatched !== undefined) {
      throw new ModelFormatError(
        "QUANTIZATION",
        `config.json: quantization names ${unmatched}, expected a module of the model such as ${[...this.#modules][0]}`,
      );
    }
  }

  #vector(parts: readonly { name: string; length: number; at(i: number): number }[], length: number): Vector {
    const offset = this.auxLength;
    this.auxLength += length;
    for (const { name, length: count, at } of parts) {
      const tensor = this.#claims.claim(name);
      if (tensor === undefined) continue;
      checkShape(tensor, [count]);
      if (PLAIN[tensor.dtype] === undefined) throw wrongDtype(tensor, Object.keys(PLAIN));
      this.vectors.push({ tensor, at: (i) => offset + at(i) });
    }
    return { offset };
  }

  #part({ module, rows }: Projection, cols: number, firstBlock: number, blockStride: number): Part {
    this.#modules.add(module);
    const weight = this.#claims.claim(`${module}.weight`);
    const width = quantizationOf(this.#quantization, module);
    const quantized = width !== null && this.#claims.has(`${module}.scales`);
    // A missing tensor is reported by `finish`, with all others: until then any stand-in of the right shape will do.
    if (weight === undefined)
      return {
        module,
        rows,
        firstBlock,
        blockStride,
        weight: standIn(this.#location, rows, cols),
        scales: undefined,
        biases: undefined,
      };
    if (!quantized) {
      checkShape(weight, [rows, cols]);
      if (PLAIN[weight.dtype] === undefined) throw wrongDtype(weight, Object.keys(PLAIN));
      return { module, rows, firstBlock, blockStride, weight, scales: undefined, biases: undefined };
    }
    const { bits, group_size } = width;
    if (cols % group_size !== 0) {
      throw new ModelFormatError(
        "CONFIG",
        `${module}.weight: ${cols} columns, expected a multiple of group_size ${group_size}`,
        { tensor: weight.name },
      );
    }
    const scales = this.#claims.claim(`${module}.scales`);
    const biases = this.#claims.claim(`${module}.biases`);
    checkShape(weight, [rows, (cols * bits) / 32], `${bits} bits and group_size ${group_size} in config.json`);
    if (weight.dtype !== "U32") throw wrongDtype(weight, ["U32"]);
    for (const tensor of [scales, biases]) {
      if (tensor === undefined) continue;
      checkShape(tensor, [rows, cols / group_size], `group_size ${group_size} in config.json`);
      if (SCALES[tensor.dtype] === undefined) throw wrongDtype(tensor, Object.keys(SCALES));
    }
    if (scales !== undefined && biases !== undefined && scales.dtype !== biases.dtype)
      throw wrongDtype(biases, [scales.dtype]);
    return { module, rows, firstBlock, blockStride, weight, scales, biases };
  }

  #storage({ module, weight, scales }: Part, cols: number): Storage {
    const width = quantizationOf(this.#quantization, module);
    if (scales === undefined || width === null)
      return { layout: PLAIN[weight.dtype] ?? "f32", group: BLOCK_COLS, scaleType: "f16" };
    if (cols % width.group_size !== 0) throw new RangeError(`${module}: ${cols} columns by ${width.group_size}`);
    return {
      layout: width.bits === 4 ? "affine4" : "affine8",
      group: width.group_size,
      scaleType: SCALES[scales.dtype] ?? "f16",
    };
  }

  #add(name: string, parts: readonly Part[], cols: number, unit: number): Matrix {
    const [first] = parts;
    if (first === undefined) throw new RangeError(`${name}: a matrix of no parts`);
    const blocks = parts.reduce((sum, { rows }) => sum + paddedRows(rows) / BLOCK_ROWS, 0);
    const matrix: Matrix = { name, cols, blocks, unit, parts, ...this.#storage(first, cols), shards: [] };
    this.matrices.push(matrix);
    return matrix;
  }
}

/** Bytes of a block of 32 stored rows: its words, and its scales. */
export function blockBytes({
  layout,
  cols,
  group,
  scaleType,
}: Pick<Matrix, "layout" | "cols" | "group" | "scaleType">) {
  const { runWords, scaling } = layouts[layout];
  return {
    words: BLOCK_ROWS * runCount(cols) * runWords * 4,
    scales: scaling !== "none" ? BLOCK_ROWS * (cols / group) * planes(scaleType) * 4 : 0,
  };
}

/** Bytes on the GPU of everything in the plan. */
export function planBytes({ matrices, auxLength }: Pick<WeightPlan, "matrices" | "auxLength">): number {
  return matrices.reduce((sum, matrix) => {
    const { words, scales } = blockBytes(matrix);
    return sum + matrix.blocks * (words + scales);
  }, auxLength * 4);
}

const sameStorage = (a: Storage, b: Storage) =>
  a.layout === b.layout && a.group === b.group && a.scaleType === b.scaleType;
const describe = ({ layout, group, scaleType }: Storage) =>
  layouts[layout].scaling !== "none" ? `${layout}/${group} with ${scaleType} scales` : layout;

function checkShape(tensor: CheckpointTensor, want: readonly number[], because = "config.json"): void {
  const is = tensor.shape;
  if (is.length === want.length && is.every((size, i) => size === want[i])) return;
  const message = `${tensor.name}: shape (${is.join(", ")}), expected (${want.join(", ")}) from ${because}`;
  throw new ModelFormatError("TENSOR_SHAPE", message, { tensor: tensor.name });
}

function wrongDtype(tensor: CheckpointTensor, want: readonly string[]): UnsupportedModelError {
  return new UnsupportedModelError(`${tensor.name}: dtype ${tensor.dtype}, expected ${want.join(" or ")}`);
}

function standIn(location: string, rows: number, cols: number): CheckpointTensor {
  const read = () => Promise.reject(new RangeError(`${location}: a tensor that is missing was read`));
  const source = { name: location, size: 0, read, close: async () => {} };
  return { name: MISSING, dtype: "F32", shape: [rows, cols], begin: 0, end: 0, source };
}
