/** What `ingle bench` measures beside its tests: loading, a profile of each, and a decode step against its matmuls alone. */
import { type DecodeStep, measureDecodeStep, type StepTap } from "../bench/decodeStep.ts";
import { BenchError } from "../bench/errors.ts";
import { measureSpeed, type SpeedOptions } from "../bench/speed.ts";
import { type SpeedTest, testName } from "../bench/speedTest.ts";
import { bytes } from "../device/buffers.ts";
import type { Engine } from "../engine/engine.ts";
import type { LoadProgress } from "../engine/loadModel.ts";
import type { Context } from "./command.ts";
import type { ProfileTarget } from "./profile.ts";

/** One more run of a test with its dispatches timed: not among the repetitions, since that takes time of its own. */
export async function profileOne(
  engine: Engine,
  { profiler }: ProfileTarget,
  test: SpeedTest,
  options: Omit<SpeedOptions, "repetitions">,
): Promise<void> {
  const name = `${testName(test)} of batch ${test.batch}`;
  // What comes before the first repetition is the warm-up, which needs no profile.
  const onRepetition = (_: SpeedTest, i: number) => (i === 0 ? profiler.start(name) : undefined);
  const [row] = await measureSpeed(engine, [test], { ...options, repetitions: 1, onRepetition });
  profiler.stop();
  if (row?.error != null) throw new BenchError(`profile of ${name}: ${row.error}`);
}

/** The decode step that the tests ran last; undefined where none had one. */
export async function decodeStepOf(
  engine: Engine,
  tap: StepTap,
  { reporter, signal }: Context,
): Promise<DecodeStep | undefined> {
  const program = tap.decodeProgram;
  if (program === undefined) return undefined;
  reporter.status("measuring a decode step and its matmuls alone");
  const step = await measureDecodeStep(engine.gpu, program, signal);
  reporter.clear();
  return step;
}

/** "a decode step: 153 dispatches 160.1 ms · 121 matmuls alone 140.2 ms" */
export function decodeLine({ dispatches, matmuls, stepMs, matmulsMs }: DecodeStep): string {
  return `a decode step: ${dispatches} dispatches ${stepMs.toFixed(1)} ms · ${matmuls} matmuls alone ${matmulsMs.toFixed(1)} ms`;
}

/** How long loading took, in ms. */
export interface LoadTime {
  /** All of it: files, kernels, weights, the first step. */
  readonly milliseconds: number;
  /** From the first bytes of the weights to the last, the kernels that are compiled meanwhile included. */
  readonly weights_ms: number;
}

/** Takes the time of a load, from when it is made. */
export class LoadClock {
  readonly #start = performance.now();
  #first: number | undefined;
  #last = 0;

  /** To be told of progress. */
  readonly onProgress = ({ stage }: LoadProgress): void => {
    if (stage !== "weights") return;
    this.#last = performance.now();
    this.#first ??= this.#last;
  };

  stop(): LoadTime {
    return { milliseconds: performance.now() - this.#start, weights_ms: this.#last - (this.#first ?? this.#last) };
  }
}

/** "loaded 93.8 MiB in 2.31 s, the weights in 1.20 s" */
export function loadLine(load: LoadTime & { readonly bytes: number }): string {
  const seconds = (milliseconds: number) => `${(milliseconds / 1000).toFixed(2)} s`;
  return `loaded ${bytes(load.bytes)} in ${seconds(load.milliseconds)}, the weights in ${seconds(load.weights_ms)}`;
}
