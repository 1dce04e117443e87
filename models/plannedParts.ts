/** Parts of a matrix that is being planned: how each is stored, and what makes one matrix of several. */
import { sliceColumns } from "./columnSlice.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { StoredModule } from "./formats/stored.ts";
import type { Part, Storage } from "./matrix.ts";
import { type Projection, wholeBlocks, wholeSlice } from "./projection.ts";
import { describe, MISSING, sameStorage } from "./storage.ts";

/** A projection of a module, as it is stored. */
export interface PlannedPart {
  readonly part: Part;
  readonly storage: Storage;
  readonly format: string;
  /** As f32s. */
  unpacked?(): PlannedPart;
}

/** Where a part's blocks of rows lie in the matrix, and whether they are whole blocks of the tensor's: else they share no scales. */
export interface PartPlace {
  readonly firstBlock?: number;
  readonly blockStride?: number;
  readonly whole?: boolean;
}

/** A projection's part of its module. */
export function plannedPart(projection: Projection, shared: StoredModule, cols: number, place: PartPlace): PlannedPart {
  const { module, rows, columns } = projection;
  const slice = wholeSlice(projection);
  const { firstBlock = 0, blockStride = 1, whole = wholeBlocks(slice, rows) } = place;
  const own = shared.byRow !== undefined && !whole ? shared.byRow : shared;
  const planned = (it: StoredModule): PlannedPart => {
    const stored = columns === undefined ? it : sliceColumns(module, it, columns, cols);
    const { codes, params, format, byRow: _, unpacked: __, ...storage } = stored;
    return { part: { module, rows, slice, firstBlock, blockStride, codes, params }, storage, format };
  };
  const { unpacked } = own;
  return { ...planned(own), ...(unpacked === undefined ? {} : { unpacked: () => planned(unpacked()) }) };
}

/**
 * Parts of a stack: as f32s, where they are stored in several ways or have columns in orders of their own, and all can be. What is missing
 * is stored as the others: `finish` of the plan reports it.
 */
export function alike(all: readonly PlannedPart[]): readonly PlannedPart[] {
  const there = all.filter(({ format }) => format !== MISSING);
  const [first] = there;
  if (first === undefined) return all;
  const parts = all.map((part) => (part.format === MISSING ? { ...part, storage: first.storage } : part));
  const fits = there.every(({ storage }) => storage.order === undefined && sameStorage(storage, first.storage));
  const canBe = there.every(({ storage, unpacked }) => storage.layout === "f32" || unpacked !== undefined);
  return fits || !canBe ? parts : parts.map((part) => part.unpacked?.() ?? part);
}

/** Throws UnsupportedModelError where parts of one matrix are stored in several ways, those aside that are missing. */
export function checkAlike(all: readonly PlannedPart[]): void {
  const [first, ...others] = all.filter(({ format }) => format !== MISSING);
  const odd = first && others.find(({ storage }) => !sameStorage(storage, first.storage));
  if (first === undefined || odd === undefined) return;
  throw new UnsupportedModelError(
    `${odd.part.module}: stored as ${describe(odd.storage)}, expected ${describe(first.storage)} as ${first.part.module}; quantize all experts alike`,
  );
}
