/**
 * Programs: dispatches recorded once and replayed for ever.
 *
 * While recording, an op names its kernel, its buffers and its params; nothing touches the queue. `finish` compiles
 * the pipelines in parallel, lays the params of all dispatches out in one uniform buffer, gives activation slots
 * whole buffers of the arena by lifetime, and makes every bind group. A replay creates nothing.
 */
import { type Arena, colour, type Slot, type SlotRange } from "./arena.ts";
import { createBuffer, destroyBuffer } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import type { CompiledKernel, Pipeline, PipelineCache } from "./pipelines.ts";
import { insideErrorScopes } from "./scopes.ts";
import type { Timestamps } from "./timestamps.ts";

/** A part of a buffer; `offset` a multiple of minStorageBufferOffsetAlignment. */
export interface BufferRange {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** A whole buffer that lives outside the program, a part of one, or a slot that the arena fills in, or a part of that. */
export type Bound = GPUBuffer | BufferRange | Slot | SlotRange;

/** Workgroups along x, y and z. */
export type Grid = readonly [x: number, y: number, z: number];

/** One recorded launch, before its buffers are known. */
export interface Launch {
  readonly kernel: CompiledKernel;
  /** Buffers in the order of the kernel's bindings 1, 2, …; binding 0 is the params. */
  readonly buffers: readonly Bound[];
  readonly params: Uint32Array<ArrayBuffer>;
  readonly grid: Grid;
  /** What it does in the model, for profiles: "layers.3 qkv". */
  readonly label: string;
}

/** A recorded launch, ready to be encoded: nothing in it changes from step to step. */
export interface Dispatch {
  readonly label: string;
  readonly kernel: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly grid: Grid;
  /** Bound buffers that are no activations, for profiles: weights, pages, tables. */
  readonly bound: readonly BoundBuffer[];
}

/** A buffer from outside of the program: its label, and how much of it is bound. */
export interface BoundBuffer {
  readonly label: string;
  readonly bytes: number;
}

/** A flat list of dispatches. The program owns its uniform buffer; the arena and the bound buffers are others'. */
export interface Program {
  readonly dispatches: readonly Dispatch[];
  /** The buffer that a slot got, for uploads and read-back. */
  bufferOf(slot: Slot): GPUBuffer;
  destroy(): void;
}

/** Collects launches; `label` prefixes what is recorded next. */
export class Recorder {
  readonly gpu: Gpu;
  readonly #pipelines: PipelineCache;
  readonly #launches: Launch[] = [];
  readonly #slots: Slot[] = [];
  label = "";

  constructor(gpu: Gpu, pipelines: PipelineCache) {
    this.gpu = gpu;
    this.#pipelines = pipelines;
  }

  /** A new activation buffer of at least `bytes`; alive from its first to its last dispatch. `kept` ones live to the end. */
  slot(bytes: number, label: string, kept = false): Slot {
    const slot: Slot = { bytes, label, kept };
    this.#slots.push(slot);
    return slot;
  }

  dispatch(launch: Omit<Launch, "label">, label: string): void {
    const limit = this.gpu.limits.maxComputeWorkgroupsPerDimension;
    if (launch.grid.some((groups) => groups > limit))
      throw new RangeError(`${launch.kernel.name}: grid ${launch.grid.join(" × ")}, at most ${limit} an axis`);
    this.#launches.push({ ...launch, label: this.label === "" ? label : `${this.label} ${label}` });
  }

  /** Kernels of what was recorded, each once. */
  get kernels(): CompiledKernel[] {
    return [...new Set(this.#launches.map(({ kernel }) => kernel))];
  }

  /** Compiles, binds and returns what was recorded. The caller owns the program. Throws OutOfMemoryError and GpuValidationError. */
  async finish(arena: Arena): Promise<Program> {
    const pipelines = await Promise.all(this.#launches.map(({ kernel }) => this.#pipelines.get(kernel)));
    const { value, error } = insideErrorScopes(this.gpu, () => this.#bind(arena, pipelines), "program");
    const discard = (reason: unknown): never => {
      value.program.destroy();
      arena.discard(value.grown);
      throw reason;
    };
    const failure = await error.catch(discard);
    return failure === undefined ? value.program : discard(failure);
  }

  #bind(arena: Arena, pipelines: readonly Pipeline[]): { program: Program; grown: readonly GPUBuffer[] } {
    const { gpu } = this;
    const { placed, grown } = arena.place(colour(this.#slots, this.#launches));
    const bufferOf = (slot: Slot): GPUBuffer => {
      const buffer = placed.get(slot);
      if (buffer === undefined) throw new RangeError(`slot ${slot.label}: no dispatch of this program uses it`);
      return buffer;
    };
    const { uniform, offsets } = packParams(gpu, this.#launches);
    const dispatches = this.#launches.map((launch, index): Dispatch => {
      const { kernel, buffers, params, grid, label } = launch;
      const block = { buffer: uniform, offset: offsets[index] ?? Number.NaN, size: params.byteLength };
      const bound = buffers.map((buffer): GPUBufferBinding => {
        if ("buffer" in buffer) return buffer;
        if ("slot" in buffer) return { buffer: bufferOf(buffer.slot), offset: buffer.offset, size: buffer.size };
        return { buffer: "bytes" in buffer ? bufferOf(buffer) : buffer };
      });
      const entries = [block, ...bound].map((resource, binding) => ({ binding, resource }));
      const { pipeline, layout } = pipelines[index] ?? fail(label);
      return {
        label,
        kernel: kernel.name,
        pipeline,
        bindGroup: gpu.device.createBindGroup({ label, layout, entries }),
        grid,
        bound: outsideBuffers(buffers),
      };
    });
    return { program: { dispatches, bufferOf, destroy: () => destroyBuffer(gpu, uniform) }, grown };
  }
}

function outsideBuffers(buffers: readonly Bound[]): BoundBuffer[] {
  const known = new Map<GPUBuffer, BoundBuffer>(); // a buffer may stand in for another that a kernel does not use
  for (const it of buffers) {
    if ("bytes" in it || "slot" in it) continue;
    const [buffer, bytes] = "buffer" in it ? [it.buffer, it.size] : [it, it.size];
    known.set(buffer, { label: buffer.label, bytes });
  }
  return [...known.values()];
}

function fail(label: string): never {
  throw new RangeError(`${label}: no pipeline`);
}

/** One uniform buffer with the params of every dispatch, each at an offset that WebGPU allows. */
function packParams(gpu: Gpu, launches: readonly Launch[]) {
  const align = gpu.limits.minUniformBufferOffsetAlignment ?? 256;
  const offsets: number[] = [];
  let size = 0;
  for (const { params } of launches) {
    offsets.push(size);
    size += Math.ceil(params.byteLength / align) * align;
  }
  const words = new Uint32Array(Math.max(size, 16) / 4);
  for (const [index, { params }] of launches.entries()) words.set(params, (offsets[index] ?? Number.NaN) / 4);
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const uniform = createBuffer(gpu, { label: "params", size: words.byteLength, usage });
  gpu.device.queue.writeBuffer(uniform, 0, words);
  return { uniform, offsets };
}

/** Encodes every dispatch in one pass, in the order recorded. */
export function encode(encoder: GPUCommandEncoder, { dispatches }: Pick<Program, "dispatches">): void {
  const pass = encoder.beginComputePass();
  let set: GPUComputePipeline | undefined; // a call into the binding costs as much as all the rest here, and an argument a tenth of that
  for (const { pipeline, bindGroup, grid } of dispatches) {
    if (pipeline !== set) pass.setPipeline(pipeline);
    set = pipeline;
    pass.setBindGroup(0, bindGroup);
    const [x, y, z] = grid;
    if (y === 1 && z === 1) pass.dispatchWorkgroups(x);
    else pass.dispatchWorkgroups(x, y, z);
  }
  pass.end();
}

/** As `encode`, but a pass a dispatch, timed: for profiles only, since passes cost time of their own. */
export function encodeTimed(
  encoder: GPUCommandEncoder,
  { dispatches }: Pick<Program, "dispatches">,
  timestamps: Timestamps,
): void {
  dispatches.forEach(({ pipeline, bindGroup, grid }, index) => {
    const pass = encoder.beginComputePass({ timestampWrites: timestamps.writes(index) });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    pass.end();
  });
}
