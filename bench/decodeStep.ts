/** A decode step beside its matmuls alone: the engine's own program, replayed whole and without what is no matmul, by turns. */
import type { Gpu } from "../device/gpu.ts";
import type { Profiler, StepDetails, StepEncoder } from "../device/profiler.ts";
import { type Dispatch, encode, type Program } from "../device/program.ts";
import { familyOf } from "../kernels/kernel.ts";
import { least } from "./statistics.ts";
import { timeTogether } from "./timing.ts";

/** Kernels whose time is that of reading the weights, experts' and their router's too. */
const MATMULS: ReadonlySet<string> = new Set(
  "norm_matmul matmul_residual norm_gate_up router expert_gate_up expert_down expert_down_sum".split(" "),
);
const REPETITIONS = 9;
const ENCODINGS = 100;

/** Remembers which kernels were launched and the last program of one row with one sample; passes steps on to a profiler. */
export class StepTap implements StepEncoder {
  readonly #profiler: Profiler | undefined;
  #program: Program | undefined;
  /** Names of all kernels that were launched. */
  readonly launched = new Set<string>();

  constructor(profiler: Profiler | undefined) {
    this.#profiler = profiler;
  }

  attach(gpu: Gpu): void {
    this.#profiler?.attach(gpu);
  }

  get wantsExperts(): boolean {
    return this.#profiler?.wantsExperts === true;
  }

  encode(encoder: GPUCommandEncoder, program: Program, title: string, details: StepDetails) {
    for (const { kernel } of program.dispatches) this.launched.add(kernel);
    // Without what makes way for the next step: one that is replayed is to stay where it is.
    const dispatches = program.dispatches.filter(({ kernel }) => kernel !== "advance");
    if (title === "1 row, 1 sample") this.#program = { ...program, dispatches };
    return this.#profiler?.encode(encoder, program, title, details);
  }

  /** The program of a decode step of one sequence with few tokens; undefined before there was one. */
  get decodeProgram(): Program | undefined {
    return this.#program;
  }
}

/** Times of a decode step: the least of the repetitions. */
export interface DecodeStep {
  readonly dispatches: number;
  readonly matmuls: number;
  readonly stepMs: number;
  readonly matmulsMs: number;
  /** The step over its matmuls. */
  readonly ratio: number;
  /** Of the CPU, to encode a dispatch of it, in µs. */
  readonly encodeUs: number;
}

/**
 * Times both. The engine must be idle: the step that it computed last is computed again, into the same pages with the same result.
 * Undefined where the program has no matmul.
 */
export async function measureDecodeStep(
  gpu: Gpu,
  program: Program,
  signal?: AbortSignal,
): Promise<DecodeStep | undefined> {
  const matmuls = program.dispatches.filter(isMatmul);
  if (matmuls.length === 0) return undefined;
  const [whole = [], alone = []] = await timeTogether(gpu, [program, { dispatches: matmuls }], REPETITIONS, signal);
  const [stepMs, matmulsMs] = [least(whole), least(alone)];
  return {
    dispatches: program.dispatches.length,
    matmuls: matmuls.length,
    stepMs,
    matmulsMs,
    ratio: stepMs / matmulsMs,
    encodeUs: encodeTime(gpu, program),
  };
}

/** µs a dispatch to encode a step that is then not submitted, so that no kernel takes the CPU meanwhile. */
function encodeTime({ device }: Gpu, program: Program): number {
  const times = Array.from({ length: ENCODINGS }, () => {
    const begin = performance.now();
    const encoder = device.createCommandEncoder();
    encode(encoder, program);
    encoder.finish();
    return performance.now() - begin;
  });
  return (1000 * least(times)) / program.dispatches.length;
}

const isMatmul = ({ kernel }: Pick<Dispatch, "kernel">): boolean => MATMULS.has(familyOf(kernel));
