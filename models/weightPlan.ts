/**
 * The weight plan: what a family takes from a checkpoint, known from headers alone.
 *
 * A family asks for matrices and vectors by the hub's names and gets handles; nothing is read or allocated yet, so that
 * what is missing, left over or of another shape is said first, and the memory needed is a number.
 */
import { paddedRows } from "../kernels/formats/layout.ts";
import { checkDtype, checkShape, PLAIN, type Quantization } from "./formats/stored.ts";
import type { Matrix } from "./matrix.ts";
import { ModuleClaims } from "./moduleClaims.ts";
import { blockBytes } from "./pieces.ts";
import { alike, checkAlike, type PartPlace, type PlannedPart, plannedPart } from "./plannedParts.ts";
import {
  asProjection,
  blocksOf,
  type ExpertProjections,
  type Projection,
  projectionKey,
  projectionsOf,
  wholeBlocks,
  wholeSlice,
} from "./projection.ts";
import { sameNumbers, sameStorage } from "./storage.ts";
import {
  convolutionTaps,
  expertBiases,
  interleavedBiases,
  joinedVectors,
  type PlannedVectors,
  plainVector,
  stackedBiases,
  type Vector,
  type VectorOptions,
  type VectorPart,
} from "./vectors.ts";
import type { Checkpoint } from "./weights/checkpoint.ts";
import { TensorClaims } from "./weights/claims.ts";

/** Claims tensors and lays matrices and vectors out; `finish` checks that the checkpoint was used up. */
export class WeightPlan {
  readonly #claims: TensorClaims;
  readonly #modules: ModuleClaims;
  /** Gates whose up is stored otherwise. */
  readonly #apart = new Set<string>();
  readonly matrices: Matrix[] = [];
  readonly vectors: VectorPart[] = [];
  /** Tables of codes, in the buffer of norms and biases too. */
  readonly tables: { readonly offset: number; readonly values: Float32Array }[] = [];
  /** f32s of the buffer of norms and biases. */
  auxLength = 0;

  /** `details` are those of `readDetails`: a format that wants some cannot be planned without. */
  constructor(
    checkpoint: Checkpoint,
    quantization: Quantization | null,
    details: ReadonlyMap<string, Uint8Array> = new Map(),
  ) {
    this.#claims = new TensorClaims(checkpoint);
    this.#modules = new ModuleClaims(checkpoint, this.#claims, quantization, details);
  }

  /** Tensors that are claimed, with their bytes in the file. */
  claimedBytes(): Map<string, number> {
    return this.#claims.claimedBytes();
  }

  has(name: string): boolean {
    return this.#claims.has(name);
  }

  /** Whether there is a tensor whose name begins so: by it a form of modules is told, of which one tensor may be missing. */
  hasUnder(path: string): boolean {
    return this.#claims.hasUnder(path);
  }

  /** One projection as one matrix. */
  matrix(module: string, rows: number, cols: number, form: Omit<Projection, "module" | "rows"> = {}): Matrix {
    return this.#add(module, [this.#part({ ...form, module, rows }, cols)], cols, 1);
  }

  /**
   * Projections of one input behind each other, each from a whole block on: one matrix where they are stored alike, else
   * one each, in order. The stored row at which projection i begins is the sum of the padded rows before it. With `together` they are one
   * wherever they can be.
   */
  stacked(projections: readonly Projection[], cols: number, { together = false } = {}): Matrix[] {
    const runs: PlannedPart[][] = [];
    const all = projections.map((projection) => this.#part(projection, cols));
    for (const planned of together ? alike(all) : all) {
      const last = runs.at(-1);
      if (last?.[0] !== undefined && sameStorage(last[0].storage, planned.storage)) last.push(planned);
      else runs.push([planned]);
    }
    return runs.map((run) => {
      let block = 0;
      const placed = run.map((planned) => {
        const firstBlock = block;
        block += blocksOf(planned.part.rows);
        return { ...planned, part: { ...planned.part, firstBlock } };
      });
      return this.#add(run.map(({ part }) => part.module).join(" + "), placed, cols, 1);
    });
  }

  /**
   * Two projections of one size, gate and up: one matrix by alternate blocks of 32 rows where they are stored alike, else
   * one matrix each.
   */
  interleaved(gate: string | Projection, up: string | Projection, rows: number, cols: number): readonly Matrix[] {
    const [a, b] = [asProjection(gate, rows), asProjection(up, rows)];
    const parts = [
      this.#part(a, cols, { firstBlock: 0, blockStride: 2 }),
      this.#part(b, cols, { firstBlock: 1, blockStride: 2 }),
    ] as const;
    if (sameStorage(parts[0].storage, parts[1].storage))
      return [this.#add(`${a.module} + ${b.module}`, parts, cols, 2)];
    this.#apart.add(projectionKey(a));
    return parts.map((planned) => {
      const part = { ...planned.part, firstBlock: 0, blockStride: 1 };
      return this.#add(part.module, [{ ...planned, part }], cols, 1);
    });
  }

  /**
   * A stack of experts as one matrix: expert e begins at block e · (blocks of its rows), twice that where `of` gives gate and up, whose
   * blocks alternate. No expert is split between shards. `rows` is of one projection, of the last ones there may be fewer.
   */
  experts(count: number, of: (expert: number) => ExpertProjections, rows: number, cols: number): Matrix {
    const experts = Array.from({ length: count }, (_, e) => projectionsOf(of(e)));
    const name = `${(experts[0] ?? []).map(({ module }) => module).join(" + ")} and other experts`;
    return this.#stack(name, experts, rows, cols);
  }

  /** The rows that each head has in one module as one matrix: head h begins at block h · (blocks of its rows), and none is split between shards. */
  byHead(name: string, heads: number, of: (head: number) => Projection, rows: number, cols: number): Matrix {
    const each = Array.from({ length: heads }, (_, h) => [of(h)]);
    return this.#stack(name, each, rows, cols);
  }

  #stack(name: string, experts: readonly (readonly Projection[])[], rows: number, cols: number): Matrix {
    const each = blocksOf(rows);
    const count = experts.length;
    // All alike: where one expert's rows are no whole blocks of the tensor's, none share scales.
    const whole = experts.flat().every((projection) => wholeBlocks(wholeSlice(projection), projection.rows));
    const parts = experts.map((list, e) =>
      list.map((projection, i) =>
        this.#part(projection, cols, { firstBlock: e * each * list.length + i, blockStride: list.length, whole }),
      ),
    );
    const [first = []] = parts;
    return this.#add(name, alike(parts.flat()), cols, each * first.length, count * each * first.length);
  }

  /** A vector of `length` elements, with zeros behind up to whole blocks. */
  vector(name: string, length: number, options: VectorOptions = {}): Vector {
    return this.#vector(plainVector(name, length, options));
  }

  /** Vectors of one length behind each other without room between, and zeros behind the last up to whole blocks. */
  joined(names: readonly string[], length: number): Vector {
    return this.#vector(joinedVectors(names, length));
  }

  /**
   * The taps of a depthwise convolution as (taps, channels), from a tensor (channels, 1, taps). Its channels are groups one after the other,
   * each of which begins at a whole block as the rows of `stacked` do. With `mlx` it may be (channels, taps, 1), as MLX writes it.
   */
  convolution(name: string, groups: readonly number[], taps: number, { mlx = false } = {}): Vector {
    return this.#vector(convolutionTaps(name, groups, taps, mlx));
  }

  /** Biases in the order of the stored rows of `stacked`; undefined where `present` is false. */
  stackedBias(projections: readonly Projection[], present: boolean): Vector | undefined {
    return present ? this.#vector(stackedBiases(projections)) : undefined;
  }

  /** Biases in the order of the stored rows of what `interleaved` returned: call it after. */
  interleavedBias(
    gate: string | Projection,
    up: string | Projection,
    rows: number,
    present: boolean,
  ): Vector | undefined {
    if (!present) return undefined;
    const [first, second] = [asProjection(gate, rows), asProjection(up, rows)];
    if (this.#apart.has(projectionKey(first))) return this.stackedBias([first, second], present);
    return this.#vector(interleavedBiases([first, second], rows));
  }

  /** Biases in the order of the stored rows of `experts`. */
  expertsBias(
    count: number,
    of: (expert: number) => ExpertProjections,
    rows: number,
    present: boolean,
  ): Vector | undefined {
    if (!present) return undefined;
    const experts = Array.from({ length: count }, (_, e) => of(e));
    return this.#vector(expertBiases(experts, rows));
  }

  /** Throws ModelFormatError where tensors are missing or left over, or quantization names modules that are not there; `ignored` names more that may be left. */
  finish(ignored?: (name: string) => boolean): void {
    this.#claims.finish((name) => this.#modules.isZeroBias(name) || ignored?.(name) === true);
    this.#modules.checkNames();
  }

  #vector({ parts, length }: PlannedVectors): Vector {
    const offset = this.auxLength;
    this.auxLength += length;
    for (const { name, length: count, of, also, from, at, add, shared } of parts) {
      const tensor = shared ? this.#claims.share(name) : this.#claims.claim(name);
      if (tensor === undefined) continue;
      if (also === undefined || also.join() !== tensor.shape.join()) checkShape(tensor, of);
      checkDtype(tensor, ...Object.keys(PLAIN));
      this.vectors.push({ tensor, count, from, at: (i) => offset + at(i), add });
    }
    return { offset };
  }

  #part(projection: Projection, cols: number, place: PartPlace = {}): PlannedPart {
    const module = this.#modules.claim(projection, wholeSlice(projection), projection.columns?.of ?? cols);
    return plannedPart(projection, module, cols, place);
  }

  /** Where a table lies: equal ones are one. */
  #place(values: Float32Array | undefined): number | undefined {
    if (values === undefined) return undefined;
    const known = this.tables.find((table) => sameNumbers(table.values, values));
    if (known !== undefined) return known.offset;
    const offset = this.auxLength;
    this.auxLength += paddedRows(values.length);
    this.tables.push({ offset, values });
    return offset;
  }

  #add(name: string, planned: readonly PlannedPart[], cols: number, unit: number, room?: number): Matrix {
    const [first] = planned;
    if (first === undefined) throw new RangeError(`${name}: a matrix of no parts`);
    const parts = planned.map(({ part }) => part);
    checkAlike(planned);
    const blocks = room ?? parts.reduce((sum, { rows }) => sum + blocksOf(rows), 0);
    const tableAt = this.#place(first.storage.table);
    const { format } = first;
    const matrix: Matrix = { name, format, cols, blocks, unit, parts, ...first.storage, tableAt, shards: [] };
    this.matrices.push(matrix);
    return matrix;
  }
}

/** Bytes on the GPU of everything in the plan. */
export function planBytes({ matrices, auxLength }: Pick<WeightPlan, "matrices" | "auxLength">): number {
  return matrices.reduce((sum, matrix) => {
    const { words, scales } = blockBytes(matrix);
    return sum + matrix.blocks * (words + scales) + (matrix.order?.byteLength ?? 0);
  }, auxLength * 4);
}
