/**
 * The adapter's read bandwidth: every word of a large buffer read once, in the order that suits a GPU.
 *
 *   out[lane] = data[lane] ^ data[lane + n] ^ data[lane + 2 n] …,   n the lanes of the whole grid
 *
 * Shapes: data (vecs) vec4u · out (GROUPS · WG) vec4u, all of them stored, so that no read can be left out.
 *
 * How: neighbouring lanes read neighbouring vec4u; GROUPS workgroups walk the buffer together. The XOR of all lanes is compared
 * with the CPU's before anything is timed.
 * Limits: data a multiple of 16 bytes, in one binding.
 */
import { Arena } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import { type Program, Recorder } from "../device/program.ts";
import { readBuffer } from "../device/readback.ts";
import { kernel } from "../kernels/kernel.ts";
import { BenchError } from "./errors.ts";
import { median } from "./statistics.ts";
import { type Clock, clockOf, timeProgram } from "./timing.ts";

const GROUPS = 1024; // enough to fill large GPUs; software runs them one after the other
const LANES = 64;
const REPETITIONS = 9;
/** Colder than any cache of the adapter; software adapters read at a few GB/s and have the caches of a CPU. */
export const coldBytes = ({ adapter }: Pick<Gpu, "adapter">): number =>
  (adapter.kind === "software" ? 64 : 512) * 2 ** 20;

/** Reads `data` once. */
export const readRate = kernel({
  name: "read_rate",
  reads: { data: "vec4u" },
  writes: { out: "vec4u" },
  params: { vecs: "u32" },
  workgroup: LANES,
  code: /* wgsl */ `
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let step = groups.x * WG;
  var a = vec4u();
  var b = vec4u();
  var c = vec4u();
  var d = vec4u();
  var i = id.x;
  for (; i + 3u * step < params.vecs; i += 4u * step) {
    a ^= data[i];
    b ^= data[i + step];
    c ^= data[i + 2u * step];
    d ^= data[i + 3u * step];
  }
  for (; i < params.vecs; i += step) { a ^= data[i]; }
  out[id.x] = (a ^ b) ^ (c ^ d);
}`,
});

/** What was measured. */
export interface ReadRate {
  /** Bytes a second: the median. */
  readonly bytesPerSecond: number;
  readonly bytes: number;
  readonly samplesMs: readonly number[];
  readonly clock: Clock;
}

/** A recorded read of `bytes`, proved right. Whoever made it frees it. */
export interface ReadProbe {
  readonly program: Program;
  readonly bytes: number;
  free(): void;
}

/** Measures it. Throws BenchError where a word was read wrong, and as buffers do where there is no memory. */
export async function measureReadRate(gpu: Gpu, pipelines: PipelineCache, signal?: AbortSignal): Promise<ReadRate> {
  const { program, bytes, free } = await readProbe(gpu, pipelines, signal);
  try {
    const samplesMs = await timeProgram(gpu, program, REPETITIONS, signal);
    return { bytesPerSecond: (1000 * bytes) / median(samplesMs), bytes, samplesMs, clock: clockOf(gpu) };
  } finally {
    free();
  }
}

/** Records the read and proves it. Throws as `measureReadRate`. */
export async function readProbe(gpu: Gpu, pipelines: PipelineCache, signal?: AbortSignal): Promise<ReadProbe> {
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.limits;
  const bytes = Math.floor(Math.min(coldBytes(gpu), maxBufferSize, maxStorageBufferBindingSize) / 16) * 16;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const data = createBuffer(gpu, { label: "read rate", size: bytes, usage });
  const out = createBuffer(gpu, { label: "read rate sums", size: GROUPS * LANES * 16, usage });
  const arena = new Arena(gpu);
  const freeBuffers = () => {
    for (const buffer of [data, out]) destroyBuffer(gpu, buffer);
    arena.destroy();
  };
  try {
    const want = fill(gpu, data);
    const recorder = new Recorder(gpu, pipelines);
    readRate.launch(recorder, { buffers: { data, out }, params: { vecs: bytes / 16 }, grid: [GROUPS, 1, 1] });
    const program = await recorder.finish(arena);
    await timeProgram(gpu, program, 0, signal);
    const got = new Uint32Array((await readBuffer(gpu, out)).buffer).reduce((a, b) => a ^ b, 0) >>> 0;
    if (got !== want) {
      program.destroy();
      throw new BenchError(
        `read_rate: the XOR of ${bytes} bytes is ${got}, expected ${want}; do not trust "${gpu.adapter.name}"`,
      );
    }
    const free = () => {
      program.destroy();
      freeBuffers();
    };
    return { program, bytes, free };
  } catch (error) {
    freeBuffers();
    throw error;
  }
}

/** Writes words that differ, chunk by chunk; returns the XOR of all. */
function fill({ device }: Gpu, data: GPUBuffer): number {
  const chunk = new Uint32Array(2 ** 20);
  let xor = 0;
  for (let offset = 0; offset < data.size; offset += chunk.byteLength) {
    const words = Math.min(chunk.length, (data.size - offset) / 4);
    for (let i = 0; i < words; i++) {
      const word = Math.imul(offset / 4 + i + 1, 0x9e3779b1); // Knuth's multiplicative hash
      chunk[i] = word;
      xor ^= word;
    }
    device.queue.writeBuffer(data, offset, chunk, 0, words);
  }
  return xor >>> 0;
}
