/** What a step's program computes: the model's pass, what rules leave of its logits, tokens drawn or scored, and the next step laid out. */
import type { Arena, Slot } from "../device/arena.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import type { ChosenExperts, StepEncoder } from "../device/profiler.ts";
import { type Program, Recorder } from "../device/program.ts";
import { ADJUST_CHUNK, adjust } from "../kernels/adjust.ts";
import { ADVANCE_ROWS, advance } from "../kernels/advance.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { logProbs } from "../kernels/log_probs.ts";
import { sample } from "../kernels/sample.ts";
import { verify } from "../kernels/verify.ts";
import type { Precision } from "../kernels/xFrom.ts";
import type { Logits, Model } from "../models/model.ts";
import type { StepBuffers, StepRoute } from "../models/step.ts";
import { type Bucket, SAMPLES_AT } from "./batch.ts";
import type { DraftScores } from "./draftScores.ts";
import { bestWords, DRAWN_WORDS, type OutputReads, type Read } from "./stepOutputs.ts";

/** A program with what is read back of it, all in buffers of its own. */
export interface Recorded extends OutputReads {
  /** Where its sequences may go on by themselves, the last dispatch lays the next step out. */
  readonly program: Program;
  /** Without that. */
  readonly step: Program;
  readonly bucket: Bucket;
  readonly logits: Logits | undefined;
  readonly scores: Slot | undefined;
  /** Of each mixture of experts, where the profiler wants them. */
  readonly experts: readonly ChosenExperts[];
}

/** Whether a step of the bucket may lay the next one out: each row is its sequence's newest, and a token is drawn from it. */
const leadsOn = ({ kind, oneRowEach, everyRow, samples }: Bucket): boolean =>
  kind === "generate" && oneRowEach && everyRow && samples > 0;

/** What a recording leaves besides its launches. */
interface Launched {
  readonly logits: Logits | undefined;
  /** What was drawn from: the logits, or what rules left of them. */
  readonly scores: Slot | undefined;
  /** (samples, DRAWN_WORDS) */
  readonly drawn: Slot | undefined;
  /** (samples, bestWords(top)) */
  readonly best: Slot | undefined;
  /** Of each mixture of experts, where the bucket or the profiler wants them. */
  readonly routes: readonly StepRoute[];
}

/** What every step shares. */
export interface StepOptions {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
  readonly model: Model;
  readonly buffers: StepBuffers;
  readonly vocabulary: number;
  readonly kvType: KvType;
  readonly precision: Precision;
  readonly profiler?: StepEncoder | undefined;
}

/** Buffers that a program binds where its bucket asks for them. */
export interface StepExtras {
  /** Rules of samples; undefined where no request ever had some. */
  readonly lists: GPUBuffer | undefined;
  /** Where a draft left the scores of its proposals; undefined without one. */
  readonly draftScores: DraftScores | undefined;
}

/** Records the bucket's program, with buffers in the arena. Throws OutOfMemoryError and what compiling its kernels throws. */
export async function recordStep(
  bucket: Bucket,
  arena: Arena,
  options: StepOptions,
  extras: StepExtras,
): Promise<Recorded> {
  const recorder = new Recorder(options.gpu, options.pipelines);
  const { logits, scores, drawn, best, routes: all } = launch(recorder, bucket, options, extras);
  const routes = bucket.routes ? all : [];
  const program = await recorder.finish(arena);
  const read = (slot: Slot, words: number): Read => ({ buffer: program.bufferOf(slot), words });
  const reads = [
    ...(drawn === undefined ? [] : [read(drawn, DRAWN_WORDS)]),
    ...(best === undefined ? [] : [read(best, bestWords(bucket.top))]),
    ...routes.map(({ slot, slots }) => read(slot, slots)), // all rows are scored: sample i is row i
  ];
  const words = reads.reduce((sum, each) => sum + each.words, 0);
  const has = { drawn: drawn !== undefined, top: best === undefined ? null : bucket.top };
  const experts = all.map(({ slot, ...shape }) => ({ buffer: program.bufferOf(slot), ...shape }));
  const step = leadsOn(bucket) ? { ...program, dispatches: program.dispatches.slice(0, -1) } : program;
  return { program, step, bucket, logits, scores, reads, words, ...has, routes, experts };
}

/** Kernels of the buckets' programs, each once; nothing is compiled. */
export function kernelsOfSteps(buckets: readonly Bucket[], options: StepOptions, extras: StepExtras): CompiledKernel[] {
  const recorder = new Recorder(options.gpu, options.pipelines);
  for (const bucket of buckets) launch(recorder, bucket, options, extras);
  return recorder.kernels;
}

function launch(recorder: Recorder, bucket: Bucket, options: StepOptions, extras: StepExtras): Launched {
  const { model, buffers, vocabulary, kvType, precision, profiler } = options;
  const { rows, oneRowEach, splits, samples, everyRow, kind, top } = bucket;
  const routes: StepRoute[] = [];
  const shape = { rows, oneRowEach, splits, samples, everyRow, samplesAt: SAMPLES_AT };
  const kept = bucket.routes || profiler?.wantsExperts === true ? { routes } : {};
  const logits = model.forward({ ...buffers, ...shape, recorder, kvType, precision, ...kept });
  const launched: Launched = { logits, scores: undefined, drawn: undefined, best: undefined, routes };
  if (logits === undefined) return launched;
  const { scores, drawn } = kind === "generate" ? draw(recorder, bucket, logits, options, extras) : launched;
  let best: Slot | undefined;
  if (kind === "score" || top > 0) {
    best = recorder.slot(samples * bestWords(top) * 4, "best", true);
    logProbs.launch(recorder, {
      buffers: { logits: logits.slot, batch: buffers.batch, out: best },
      params: { vocab: vocabulary, stride: logits.stride, samples: SAMPLES_AT, top },
      grid: [samples, 1, 1],
    });
  }
  if (drawn !== undefined && leadsOn(bucket)) {
    advance.launch(recorder, {
      buffers: { drawn, batch: buffers.batch },
      params: { rows, samples: SAMPLES_AT },
      grid: [Math.ceil(rows / ADVANCE_ROWS), 1, 1],
    });
  }
  return { logits, scores, drawn, best, routes };
}

/** A token of each sample: drawn, or a draft's proposal that is kept. */
function draw(
  recorder: Recorder,
  { samples, adjusted, verify: verifies }: Bucket,
  logits: Logits,
  { buffers, vocabulary }: StepOptions,
  { lists, draftScores }: StepExtras,
): { scores: Slot; drawn: Slot } {
  const drawn = recorder.slot(samples * DRAWN_WORDS * 4, "drawn", true);
  // Where kernels are only listed, nothing is bound: any buffer stands for the rules.
  const rules = lists ?? buffers.batch;
  const scores = adjusted ? adjustScores(recorder, logits, samples, { buffers, vocabulary, rules }) : logits.slot;
  const params = { vocab: vocabulary, stride: logits.stride, samples: SAMPLES_AT };
  const grid = [samples, 1, 1] as const;
  const bound = { logits: logits.slot, scores, batch: buffers.batch, out: drawn };
  sample.launch(recorder, { buffers: bound, params: { ...params, adjusted: adjusted ? 1 : 0 }, grid });
  if (verifies && draftScores !== undefined) {
    const { buffer: drafted, stride: draft_stride, vocabulary: draft_vocab } = draftScores;
    verify.launch(recorder, { buffers: { ...bound, drafted }, params: { ...params, draft_vocab, draft_stride }, grid });
  }
  return { scores, drawn };
}

/** What rules leave of logits. */
function adjustScores(
  recorder: Recorder,
  { slot, stride }: Logits,
  samples: number,
  { buffers, vocabulary, rules }: Pick<StepOptions, "buffers" | "vocabulary"> & { readonly rules: GPUBuffer },
): Slot {
  const scores = recorder.slot(samples * stride * 4, "scores", true);
  adjust.launch(recorder, {
    buffers: { logits: slot, batch: buffers.batch, lists: rules, scores },
    params: { vocab: vocabulary, stride, samples: SAMPLES_AT },
    grid: [Math.ceil(vocabulary / ADJUST_CHUNK), samples, 1],
  });
  return scores;
}
