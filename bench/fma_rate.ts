/**
 * The adapter's rate of fused multiply-adds: chains that do not wait for each other and load nothing.
 *
 *   v = fma(v, a, b), `loops` times;   out[lane] = the sum of the lane's CHAINS values,   v of chain c beginning at c
 *
 * Shapes: out (lanes) f32.
 *
 * How: eight chains a lane hide the latency of an fma on a CPU, whose software adapters have no other threads to hide it with; more
 * would not stay in the 16 registers of AVX. With a = 0.5 and b = 1 every chain nears 2, exactly so after 60 loops.
 * Limits: loops ≥ 60, for the check.
 */
import { Arena } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import { type Program, Recorder } from "../device/program.ts";
import { readBuffer } from "../device/readback.ts";
import { kernel } from "../kernels/kernel.ts";
import { BenchError } from "./errors.ts";
import { timeProgram } from "./timing.ts";

const LANES = 64;
const CHAINS = 8;
const LOOPS = 4096;
/** Some ms of work: software adapters do some 10 GFLOP/s, GPUs a thousand times that. */
const groupsFor = ({ adapter }: Pick<Gpu, "adapter">): number => (adapter.kind === "software" ? 64 : 16_384);

const chains = Array.from({ length: CHAINS }, (_, c) => c);

/** Runs the chains. */
const fmaRate = kernel({
  name: "fma_rate",
  reads: {},
  writes: { out: "f32" },
  params: { loops: "u32", a: "f32", b: "f32" },
  workgroup: LANES,
  code: /* wgsl */ `
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u) {
${chains.map((c) => `  var v${c} = f32(id.x + ${c}u);`).join("\n")}
  for (var i = 0u; i < params.loops; i++) {
${chains.map((c) => `    v${c} = fma(v${c}, params.a, params.b);`).join("\n")}
  }
  out[id.x] = ${chains.map((c) => `v${c}`).join(" + ")};
}`,
});

/** Recorded chains of `flops` multiplications and additions, proved right. Whoever made it frees it. */
export interface FmaProbe {
  readonly program: Program;
  readonly flops: number;
  free(): void;
}

/** Records the chains and proves them. Throws BenchError where a lane's sum is wrong. */
export async function fmaProbe(gpu: Gpu, pipelines: PipelineCache, signal?: AbortSignal): Promise<FmaProbe> {
  const groups = groupsFor(gpu);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
  const out = createBuffer(gpu, { label: "fma rate", size: groups * LANES * 4, usage });
  const arena = new Arena(gpu);
  const freeBuffers = () => {
    destroyBuffer(gpu, out);
    arena.destroy();
  };
  try {
    const recorder = new Recorder(gpu, pipelines);
    fmaRate.launch(recorder, { buffers: { out }, params: { loops: LOOPS, a: 0.5, b: 1 }, grid: [groups, 1, 1] });
    const program = await recorder.finish(arena);
    await timeProgram(gpu, program, 0, signal);
    const sums = new Float32Array((await readBuffer(gpu, out)).buffer);
    const wrong = sums.findIndex((sum) => sum !== 2 * CHAINS);
    if (wrong >= 0) {
      program.destroy();
      throw new BenchError(
        `fma_rate: lane ${wrong} has ${sums[wrong]}, expected ${2 * CHAINS}; do not trust "${gpu.adapter.name}"`,
      );
    }
    const free = () => {
      program.destroy();
      freeBuffers();
    };
    return { program, flops: 2 * CHAINS * LOOPS * LANES * groups, free };
  } catch (error) {
    freeBuffers();
    throw error;
  }
}
