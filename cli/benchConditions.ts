/** What the numbers of `ingle bench` depend on: kernels are proved and the adapter's bandwidth is measured before anything is timed. */
import { conditions } from "../bench/conditions.ts";
import type { StepTap } from "../bench/decodeStep.ts";
import { prove } from "../bench/gate.ts";
import { modelBytes } from "../bench/modelBytes.ts";
import { modelKernels } from "../bench/modelKernels.ts";
import { measureReadRate } from "../bench/read_rate.ts";
import type { SpeedSubject } from "../bench/speedReport.ts";
import { MAX_ROWS } from "../engine/batch.ts";
import type { Engine } from "../engine/engine.ts";
import type { Testbed } from "../kernels/testbed.ts";
import type { LoadTime } from "./benchExtras.ts";
import type { Context } from "./command.ts";
import { parameters } from "./inspectModel.ts";
import { version } from "./version.ts";
import { mostBytes } from "./weightLabel.ts";

/** What was asked for, and how the model was loaded. */
interface Asked {
  readonly model: string;
  readonly context: Context;
  readonly repetitions: number;
  readonly seed: number;
  readonly load: LoadTime;
  readonly tap: StepTap;
}

/** What every row depends on: kernels that passed, bandwidth, and how the model was loaded. */
export async function conditionsOf(
  engine: Engine,
  bed: Testbed,
  { model: name, context, repetitions, seed, load, tap }: Asked,
) {
  const { reporter, signal } = context;
  const { gpu, model, kvType, precision } = engine;
  const drafts = engine.draft === undefined ? [] : [engine.draft.started.read];
  const kernels = modelKernels({
    matrices: [model, ...drafts].flatMap(({ weights }) => weights.matrices),
    caches: [model, ...drafts].flatMap((read) => read.model.caches),
    kvType,
    precision: precision.mode,
    gpu,
    launched: tap.launched,
  });
  const onVerdict = ({ title }: { readonly title: string }) => reporter.status(`checking kernels: ${title}`);
  const proof = await prove(bed, { kernels, signal, onVerdict });
  reporter.status("measuring the adapter's bandwidth");
  const bandwidth = await measureReadRate(gpu, bed.pipelines, signal);
  reporter.clear();
  const measured = {
    ...conditions(gpu, version(), proof, bandwidth),
    model: name,
    weights: mostBytes(model.weights.matrices),
    kv_type: kvType,
    precision: precision.mode,
    in_f32: precision.others,
    context: engine.plan.context,
    rows_per_step: MAX_ROWS,
    load: { ...load, bytes: model.weightBytes },
    memory: engine.stats().memory,
    sampling: "greedy, past the end of text",
    seed,
    repetitions,
  };
  const subject: SpeedSubject = {
    model: measured.model.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, ""),
    size: model.weightBytes,
    params: parameters(model),
    weights: measured.weights,
    kv: kvType,
    adapter: gpu.adapter.name,
    bytes: modelBytes(model, engine.plan),
    rowsPerStep: MAX_ROWS,
    bandwidth: bandwidth.bytesPerSecond,
  };
  return { measured, subject };
}

/** It as it is reported. */
export type Measured = Awaited<ReturnType<typeof conditionsOf>>["measured"];
