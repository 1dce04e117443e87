/** Every tensor of a checkpoint is claimed exactly once: what is missing or left over is named, all at once. */

import { ModelFormatError } from "../errors.ts";
import type { Checkpoint, CheckpointTensor } from "./checkpoint.ts";
import { listNames } from "./escape.ts";

/** A tensor that files carry and no computation needs. */
export interface KnownExtra {
  readonly pattern: RegExp;
  readonly reason: string;
}

/** What may be left over in silence in any family, with the reason; a family names its own (`Model.unused`). Everything else that nobody claims is an error. */
export const KNOWN_EXTRAS: readonly KnownExtra[] = [
  { pattern: /(^|\.)rotary_emb\.(original_)?inv_freq$/, reason: "rotary frequencies, computed from config.json" },
  { pattern: /(^|\.)rotary_emb\.(cos|sin)_cached$/, reason: "rotary tables, computed from config.json" },
  { pattern: /(^|\.)position_ids$/, reason: "0, 1, 2 …, stored as a buffer" },
  { pattern: /^mtp\./, reason: "extra heads that predict tokens further ahead; decoding does not use them" },
];

/** Whether `name` is one of KNOWN_EXTRAS. */
export function isKnownExtra(name: string): boolean {
  return KNOWN_EXTRAS.some(({ pattern }) => pattern.test(name));
}

/** What is claimed from: a checkpoint, or as much of one as a test needs. */
export interface ClaimedFrom extends Pick<Checkpoint, "location" | "tensors"> {
  readonly totalSizeFault?: ModelFormatError | undefined;
}

/** Keeps the books while a family takes its tensors. */
export class TensorClaims {
  readonly #checkpoint: ClaimedFrom;
  readonly #claimed = new Set<string>();
  readonly #shared = new Set<string>();
  readonly #missing: string[] = [];

  constructor(checkpoint: ClaimedFrom) {
    this.#checkpoint = checkpoint;
  }

  /** Whether the checkpoint has `name`; claims nothing. */
  has(name: string): boolean {
    return this.#checkpoint.tensors.has(name);
  }

  /** Whether the checkpoint has a tensor whose name begins with `path`; claims nothing. */
  hasUnder(path: string): boolean {
    for (const name of this.#checkpoint.tensors.keys()) if (name.startsWith(path)) return true;
    return false;
  }

  /**
   * Takes a tensor that the model needs. Where it is missing, undefined is returned and `finish` will throw, so the caller goes
   * on and all missing names are reported together. Throws RangeError where it was taken before: a fault of the family's file.
   */
  claim(name: string): CheckpointTensor | undefined {
    const tensor = this.claimIfThere(name);
    if (tensor === undefined) this.#missing.push(name);
    return tensor;
  }

  /** As `claim`, for a tensor that several take a part of. */
  share(name: string): CheckpointTensor | undefined {
    if (this.#shared.has(name)) return this.#checkpoint.tensors.get(name);
    const tensor = this.claim(name);
    if (tensor !== undefined) this.#shared.add(name);
    return tensor;
  }

  /** Takes a tensor that the model can do without, such as a bias. */
  claimIfThere(name: string): CheckpointTensor | undefined {
    const tensor = this.#checkpoint.tensors.get(name);
    if (tensor === undefined) return undefined;
    if (this.#claimed.has(name)) throw new RangeError(`tensor claims: ${name} is claimed twice, expected once`);
    this.#claimed.add(name);
    return tensor;
  }

  /** Bytes of the tensors that are claimed, by name. */
  claimedBytes(): Map<string, number> {
    const { tensors } = this.#checkpoint;
    return new Map(
      [...this.#claimed].map((name) => {
        const tensor = tensors.get(name);
        return [name, tensor === undefined ? 0 : tensor.end - tensor.begin];
      }),
    );
  }

  /** Names that nobody claimed and that are neither known extras nor `ignored`, in the order of the files. */
  leftOver(ignored: (name: string) => boolean = () => false): string[] {
    const names = [...this.#checkpoint.tensors.keys()];
    return names.filter((name) => !this.#claimed.has(name) && !isKnownExtra(name) && !ignored(name));
  }

  /**
   * Throws ModelFormatError unless everything needed was there and everything there was needed: MISSING_TENSOR, which names the
   * left-over ones too, since a renamed tensor is both; UNKNOWN_TENSOR where only some are left over; then TOTAL_SIZE.
   */
  finish(ignored?: (name: string) => boolean): void {
    const left = this.leftOver(ignored);
    const missing = this.#missing;
    const [tensor] = missing.length > 0 ? missing : left;
    if (tensor === undefined) {
      if (this.#checkpoint.totalSizeFault !== undefined) throw this.#checkpoint.totalSizeFault;
      return;
    }
    const lacks = missing.length > 0 ? [`lacks ${count(missing)}: ${listNames(missing)}`] : [];
    const holds = left.length > 0 ? [`holds ${count(left)} that the model does not know: ${listNames(left)}`] : [];
    const code = missing.length > 0 ? "MISSING_TENSOR" : "UNKNOWN_TENSOR";
    const message = `${[...lacks, ...holds].join(", and ")}; does config.json belong to these weights?`;
    throw new ModelFormatError(code, `${this.#checkpoint.location}: ${message}`, { tensor });
  }
}

function count(names: readonly string[]): string {
  return names.length === 1 ? "1 tensor" : `${names.length} tensors`;
}
