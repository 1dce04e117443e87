/** Modules of a checkpoint, each claimed once with the tensors that its format gives it. */
import { ModelFormatError } from "./errors.ts";
import { storedModule } from "./formats/module.ts";
import type { Quantization, StoredModule, Tensors } from "./formats/stored.ts";
import type { RowSlice } from "./matrix.ts";
import type { Projection } from "./projection.ts";
import { standIn } from "./storage.ts";
import type { Checkpoint } from "./weights/checkpoint.ts";
import type { TensorClaims } from "./weights/claims.ts";

/** Claims modules, and knows which ones there were. */
export class ModuleClaims {
  readonly #tensors: Tensors;
  readonly #details: ReadonlyMap<string, Uint8Array>;
  readonly #quantization: Quantization | null;
  readonly #location: string;
  /** By module: one that several projections share is claimed once. */
  readonly #modules = new Map<string, StoredModule>();
  readonly #shared = new Set<string>();

  /** Tensors are claimed through `claims`; `details` are those of `readDetails`. */
  constructor(
    checkpoint: Checkpoint,
    claims: TensorClaims,
    quantization: Quantization | null,
    details: ReadonlyMap<string, Uint8Array>,
  ) {
    this.#tensors = {
      has: (name) => claims.has(name),
      dtype: (name) => checkpoint.tensors.get(name)?.dtype ?? "",
      claim: (name) => claims.claim(name),
      claimIfThere: (name) => claims.claimIfThere(name),
      detail: (name) => details.get(name),
    };
    this.#details = details;
    this.#quantization = quantization;
    this.#location = checkpoint.location;
  }

  /**
   * A projection's module, claimed at its first one; `slice` is of the rows of its tensor, and `cols` all of its columns. Throws RangeError where it is
   * taken twice, but for parts of it. Of a missing tensor the claims tell in the end: until then a stand-in will do.
   */
  claim(projection: Projection, slice: RowSlice, cols: number): StoredModule {
    const { module, transposed = false, weight = `${module}.weight`, expert } = projection;
    const known = this.#modules.get(module);
    const shared = projection.slice !== undefined || projection.columns !== undefined || expert !== undefined;
    if (known !== undefined) {
      if (shared && this.#shared.has(module)) return known;
      throw new RangeError(`weight plan: ${module} is taken twice, expected once or by slices`);
    }
    const expertRows = expert === undefined ? undefined : slice.of / expert.of;
    const shape = { module, rows: slice.of, cols, expertRows, transposed, weight };
    const stored = storedModule(this.#tensors, shape, this.#quantization) ?? standIn(this.#location, slice.of, cols);
    this.#modules.set(module, stored);
    if (shared) this.#shared.add(module);
    return stored;
  }

  /** Whether a tensor is a bias of zeros that tools gave each module they quantized, whether the model has one or not. */
  isZeroBias(name: string): boolean {
    const bytes = this.#details.get(name);
    const module = name.replace(/\.bias$/, "");
    return bytes !== undefined && module !== name && this.#modules.has(module) && bytes.every((byte) => byte === 0);
  }

  /** Throws ModelFormatError where the quantization names a module that nobody claimed. */
  checkNames(): void {
    const unmatched = this.#quantization?.names.find((name) => !this.#modules.has(name));
    if (unmatched !== undefined) {
      throw new ModelFormatError(
        "QUANTIZATION",
        `config.json: quantization names ${unmatched}, expected a module of the model such as ${[...this.#modules.keys()][0]}`,
      );
    }
  }
}
