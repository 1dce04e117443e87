/**
 * The testbed: runs one case of a kernel on a device and compares every output element with the CPU reference.
 *
 * Buffers of a case lie between guard bytes that must come back untouched. Those behind the data are part of the binding:
 * WebGPU keeps stray accesses inside it, so that nothing else would show one. A case is one object for testing, for
 * `ingle kernels` and for pages.
 */
import { Arena } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import { DeviceLostError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { type BufferRange, encode, Recorder } from "../device/program.ts";
import { readBuffer } from "../device/readback.ts";

/** Bytes before and behind each buffer of a case. */
const GUARD = 256;
const GUARD_WORD = 0x7fc0_dead; // a NaN as f32, so that a stray read poisons the result too

/** One output against its reference. */
export interface Comparison {
  readonly name: string;
  readonly got: ArrayLike<number>;
  readonly want: ArrayLike<number>;
  /** Largest normalised mean squared error; 0 asks for equal values. */
  readonly limit: number;
}

/** One run of a kernel with what it must give. */
export interface Case {
  /** "kernel layout shape seed": stable, since reports and filters refer to it. */
  readonly title: string;
  readonly kernel: string;
  /** Features of the device or of WGSL, without which the case cannot run. */
  readonly needs?: readonly string[];
  readonly run: (bed: Testbed) => Promise<readonly Comparison[]>;
}

/** What came of a case. */
export interface Verdict {
  readonly title: string;
  readonly kernel: string;
  readonly passed: boolean;
  /** Largest NMSE of its outputs. */
  readonly error: number;
  readonly limit: number;
  readonly milliseconds: number;
  /** What failed, in words; "" if nothing. */
  readonly why: string;
}

/** Mean squared error over the mean square of what was wanted: no scale, so that one limit fits all. */
export function nmse(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return Number.NaN; // NaN passes no limit
  let error = 0;
  let square = 0;
  for (let i = 0; i < want.length; i++) {
    error += ((got[i] ?? Number.NaN) - (want[i] ?? Number.NaN)) ** 2;
    square += (want[i] ?? Number.NaN) ** 2;
  }
  if (error === 0) return 0;
  return error / Math.max(square, Number.MIN_VALUE);
}

/** Why a comparison failed, with the element that is furthest off. */
function reason({ name, got, want, limit }: Comparison, error: number): string {
  let worst = 0;
  const off = (i: number) => {
    const distance = Math.abs((got[i] ?? Number.NaN) - (want[i] ?? Number.NaN));
    return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
  };
  for (let i = 1; i < want.length; i++) if (off(i) > off(worst)) worst = i;
  const bound = limit === 0 ? "not equal" : `NMSE ${error.toExponential(1)}, at most ${limit}`;
  return `${name}: ${bound}; element ${worst} of ${want.length} is ${got[worst]}, expected ${want[worst]}`;
}

/** A guarded buffer as it is bound: the data at `offset`, then guard bytes to the end of the range. */
export interface Guarded extends BufferRange {
  /** Of the data. */
  readonly bytes: number;
}

type Data = Float32Array | Uint32Array;

/** One device with what a run of cases shares. The caller closes it, and the device after it. */
export class Testbed {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
  /** Names of the kernels that cases have run. */
  readonly ran = new Set<string>();
  readonly #arena: Arena;
  #buffers: Guarded[] = [];

  /** `pipelines`: what was compiled on the device already. */
  constructor(gpu: Gpu, pipelines = new PipelineCache(gpu)) {
    this.gpu = gpu;
    this.pipelines = pipelines;
    this.#arena = new Arena(gpu);
  }

  /** A guarded buffer with `data` in it, and `behind` bytes more than it needs; freed when the case ends. */
  buffer(data: Data, behind = 0): Guarded {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const size = Math.ceil(data.byteLength / 16) * 16 + GUARD + behind;
    const words = new Uint32Array((GUARD + size) / 4).fill(GUARD_WORD);
    words.set(new Uint32Array(data.buffer, data.byteOffset, data.length), GUARD / 4);
    const buffer = createBuffer(this.gpu, { label: "case", size: words.byteLength, usage });
    this.gpu.device.queue.writeBuffer(buffer, 0, words);
    const range = { buffer, offset: GUARD, size, bytes: data.byteLength };
    this.#buffers.push(range);
    return range;
  }

  /** A guarded buffer of `count` f32s that hold NaN until something writes them. */
  output(count: number): Guarded {
    return this.buffer(new Float32Array(count).fill(Number.NaN));
  }

  /** Records, submits and waits. */
  async submit(record: (recorder: Recorder) => void): Promise<void> {
    const recorder = new Recorder(this.gpu, this.pipelines);
    record(recorder);
    const program = await recorder.finish(this.#arena);
    for (const { kernel } of program.dispatches) this.ran.add(kernel);
    const encoder = this.gpu.device.createCommandEncoder();
    encode(encoder, program);
    this.gpu.device.queue.submit([encoder.finish()]);
    program.destroy(); // what was submitted still runs
    await this.gpu.device.queue.onSubmittedWorkDone();
  }

  /** The data of a guarded buffer. */
  async f32({ buffer, offset, bytes }: Guarded): Promise<Float32Array> {
    return new Float32Array((await readBuffer(this.gpu, buffer, offset, bytes)).buffer);
  }

  async u32({ buffer, offset, bytes }: Guarded): Promise<Uint32Array> {
    return new Uint32Array((await readBuffer(this.gpu, buffer, offset, bytes)).buffer);
  }

  /** Runs one case inside an error scope, checks its guards and frees its buffers. */
  async check({ title, kernel, run }: Case): Promise<Verdict> {
    const start = performance.now();
    const { device } = this.gpu;
    const uncaptured = this.gpu.uncaptured.length;
    device.pushErrorScope("validation");
    let comparisons: readonly Comparison[] = [];
    let why = "";
    try {
      comparisons = await run(this);
      why = await this.#touchedGuard();
    } catch (error) {
      why = error instanceof Error ? error.message : String(error);
    }
    const popped = device.popErrorScope();
    for (const { buffer } of this.#buffers.splice(0)) destroyBuffer(this.gpu, buffer);
    const invalid = await popped.catch((cause: unknown) => {
      throw new DeviceLostError(`case ${title}: the device went away before its errors were known`, { cause });
    });
    const errors = comparisons.map((comparison) => ({ ...comparison, error: nmse(comparison.got, comparison.want) }));
    const failed = errors.find(({ error, limit }) => !(error <= limit));
    const inexact = errors.filter(({ limit }) => limit > 0);
    const worst = failed ?? inexact.toSorted((a, b) => b.error / b.limit - a.error / a.limit)[0] ?? errors[0];
    if (invalid !== null) why = invalid.message;
    else if (why === "" && this.gpu.uncaptured.length > uncaptured) why = String(this.gpu.uncaptured[uncaptured]);
    else if (why === "" && failed !== undefined) why = reason(failed, failed.error);
    else if (why === "" && !comparisons.some(({ want }) => want.length > 0)) why = "compared nothing";
    return {
      title,
      kernel,
      passed: why === "",
      error: worst?.error ?? Number.NaN,
      limit: worst?.limit ?? Number.NaN,
      milliseconds: performance.now() - start,
      why,
    };
  }

  /** Names the first buffer whose guard was written, or "". */
  async #touchedGuard(): Promise<string> {
    for (const [index, { buffer, offset, bytes }] of this.#buffers.entries()) {
      const words = new Uint32Array((await readBuffer(this.gpu, buffer)).buffer);
      const touched = words.findIndex((word, i) => (i * 4 < offset || i * 4 >= offset + bytes) && word !== GUARD_WORD);
      if (touched >= 0) return `buffer ${index} of ${bytes} bytes: guard byte ${touched * 4 - offset} was written`;
    }
    return "";
  }

  close(): void {
    this.#arena.destroy();
  }
}

/** Repeatable numbers: the same seed is the same case on every machine. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** In [0, 1). Source: mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  /** An integer in [0, end). */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
  pick<T>(from: readonly T[]): T {
    const found = from[this.below(from.length)];
    if (found === undefined) throw new RangeError("pick: nothing to choose from");
    return found;
  }
  /** f32s around 0 with the given spread. */
  floats(count: number, spread = 1): Float32Array {
    return Float32Array.from({ length: count }, () => (this.next() + this.next() + this.next() - 1.5) * spread);
  }
}
