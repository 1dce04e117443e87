/**
 * The activation arena: a few whole buffers, shared by slots whose lifetimes do not meet.
 *
 * WebGPU forbids one buffer bound both read-only and read-write in a dispatch, whatever the ranges, so a slot is a
 * whole buffer bound from offset 0. Programs of one engine never overlap in time and share the arena.
 */
import { createBuffer, destroyBuffer } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";

/** A buffer that exists while a program runs. `kept` ones are not shared with later slots of the program. */
export interface Slot {
  readonly bytes: number;
  readonly label: string;
  readonly kept: boolean;
}

/** A part of a slot, for uniform bindings, whose size has a limit: `offset` is a multiple of minUniformBufferOffsetAlignment. It may end behind what the slot asked for. */
export interface SlotRange {
  readonly slot: Slot;
  readonly offset: number;
  readonly size: number;
}

/** Slots that share one buffer; `bytes` is the largest of them. */
export interface Colour {
  readonly bytes: number;
  readonly slots: readonly Slot[];
}

interface Lifetime {
  readonly slot: Slot;
  /** What the slot asked for, or what a part of it needs. */
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Gives each used slot a colour so that slots alive in one dispatch differ; larger slots choose first. */
export function colour(slots: readonly Slot[], launches: readonly { readonly buffers: readonly object[] }[]): Colour[] {
  const ends = new Map<Slot, number>();
  for (const { buffers } of launches) {
    for (const it of buffers) {
      if (!isRange(it)) continue;
      ends.set(it.slot, Math.max(ends.get(it.slot) ?? 0, it.offset + it.size));
    }
  }
  const lifetimes = slots.flatMap((slot): Lifetime[] => {
    const uses = launches.flatMap(({ buffers }, index) => (buffers.includes(slot) ? [index] : []));
    const [first, last] = [uses[0], slot.kept ? launches.length : uses.at(-1)];
    const bytes = Math.max(slot.bytes, ends.get(slot) ?? 0);
    return first === undefined || last === undefined ? [] : [{ slot, bytes, first, last }];
  });
  const colours: Lifetime[][] = [];
  const meet = (a: Lifetime, b: Lifetime) => a.first <= b.last && b.first <= a.last;
  for (const lifetime of lifetimes.toSorted((a, b) => b.bytes - a.bytes)) {
    const free = colours.find((others) => !others.some((other) => meet(other, lifetime)));
    if (free === undefined) colours.push([lifetime]);
    else free.push(lifetime);
  }
  return colours.map((group) => ({
    bytes: Math.max(...group.map(({ bytes }) => bytes)),
    slots: group.map(({ slot }) => slot),
  }));
}

const isRange = (it: object): it is SlotRange => "slot" in it;

/** Owns the buffers; grows when a program needs more, shrinks never. */
export class Arena {
  readonly #gpu: Gpu;
  readonly #buffers: GPUBuffer[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  get bytes(): number {
    return this.#buffers.reduce((sum, { size }) => sum + size, 0);
  }

  /** A buffer for every slot: the smallest of the arena that fits and is not taken by this program, or a new one, named in `grown`. */
  place(colours: readonly Colour[]): { readonly placed: Map<Slot, GPUBuffer>; readonly grown: readonly GPUBuffer[] } {
    const taken = new Set<GPUBuffer>();
    const placed = new Map<Slot, GPUBuffer>();
    const before = new Set(this.#buffers);
    for (const { bytes, slots } of colours.toSorted((a, b) => b.bytes - a.bytes)) {
      const fits = this.#buffers.filter((buffer) => buffer.size >= bytes && !taken.has(buffer));
      const buffer = fits.toSorted((a, b) => a.size - b.size)[0] ?? this.#grow(bytes);
      taken.add(buffer);
      for (const slot of slots) placed.set(slot, buffer);
    }
    return { placed, grown: this.#buffers.filter((buffer) => !before.has(buffer)) };
  }

  /** Frees buffers of the arena that there was no memory for. */
  discard(buffers: readonly GPUBuffer[]): void {
    for (const buffer of buffers) {
      this.#buffers.splice(this.#buffers.indexOf(buffer), 1);
      destroyBuffer(this.#gpu, buffer);
    }
  }

  #grow(bytes: number): GPUBuffer {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = createBuffer(this.#gpu, { label: "activations", size: Math.ceil(bytes / 16) * 16, usage });
    this.#buffers.push(buffer);
    return buffer;
  }

  destroy(): void {
    for (const buffer of this.#buffers.splice(0)) destroyBuffer(this.#gpu, buffer);
  }
}
