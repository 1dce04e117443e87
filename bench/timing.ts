/** How long a recorded program takes: by the GPU's own clock where it has one, else by ours around one submission. */
import type { Gpu } from "../device/gpu.ts";
import { encode, type Program } from "../device/program.ts";
import { Timestamps } from "../device/timestamps.ts";

/** Which clock: "timestamps" are of the GPU, begin and end of the one pass; "submit" is from the call to the end of the work. */
export type Clock = "timestamps" | "submit";

/** A program, or a part of one. */
export type Dispatches = Pick<Program, "dispatches">;

/** The clock that `timeProgram` takes on a device. */
export const clockOf = (gpu: Gpu): Clock => (Timestamps.supported(gpu) ? "timestamps" : "submit");

/** Milliseconds of each repetition of one program: as `timeTogether`. */
export async function timeProgram(
  gpu: Gpu,
  program: Dispatches,
  repetitions: number,
  signal?: AbortSignal,
): Promise<number[]> {
  const [samples = []] = await timeTogether(gpu, [program], repetitions, signal);
  return samples;
}

/**
 * Milliseconds of each repetition of each program, by turns, so that what else the machine does meets all of them. The first turn
 * is not counted, since drivers compile at the first dispatch. All dispatches of a program are in one pass, in order. Throws the
 * signal's reason between two turns.
 */
export async function timeTogether(
  gpu: Gpu,
  programs: readonly Dispatches[],
  repetitions: number,
  signal?: AbortSignal,
): Promise<number[][]> {
  const timestamps = clockOf(gpu) === "timestamps" ? new Timestamps(gpu, 1) : undefined;
  const samples = programs.map((): number[] => []);
  try {
    for (let i = -1; i < repetitions; i++) {
      signal?.throwIfAborted();
      for (const [p, program] of programs.entries()) {
        const milliseconds = await timeOnce(gpu, program, timestamps);
        if (i >= 0) samples[p]?.push(milliseconds);
      }
    }
    return samples;
  } finally {
    timestamps?.destroy();
  }
}

async function timeOnce(gpu: Gpu, program: Dispatches, timestamps: Timestamps | undefined): Promise<number> {
  const { device } = gpu;
  const encoder = device.createCommandEncoder();
  if (timestamps === undefined) {
    encode(encoder, program);
    const commands = encoder.finish();
    const start = performance.now();
    device.queue.submit([commands]);
    await gpu.waitFor(device.queue.onSubmittedWorkDone());
    return performance.now() - start;
  }
  const pass = encoder.beginComputePass({ timestampWrites: timestamps.writes(0) });
  for (const { pipeline, bindGroup, grid } of program.dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
  }
  pass.end();
  timestamps.resolve(encoder);
  device.queue.submit([encoder.finish()]);
  const [nanoseconds = Number.NaN] = await timestamps.read();
  return nanoseconds / 1e6;
}
