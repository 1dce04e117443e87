/**
 * The runner: one program a bucket, recorded once; a step is one write, one submit and a few bytes read back.
 */
import { Arena, type Slot } from "../device/arena.ts";
import { createBuffer, destroyBuffer } from "../device/buffers.ts";
import { DeviceLostError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import type { StepEncoder } from "../device/profiler.ts";
import { encode, type Program, Recorder } from "../device/program.ts";
import { insideErrorScopes } from "../device/scopes.ts";
import type { KvType } from "../kernels/attention/kv_page.ts";
import { f32FromBits } from "../kernels/formats/halves.ts";
import { NONE } from "../kernels/kernel.ts";
import { logProbs } from "../kernels/log_probs.ts";
import { sample } from "../kernels/sample.ts";
import type { Precision } from "../kernels/xFrom.ts";
import type { Logits, Model } from "../models/model.ts";
import type { StepBuffers, StepRoute } from "../models/step.ts";
import { type Batch, type Bucket, bucketTitle, SAMPLES_AT } from "./batch.ts";
import type { RowOutput } from "./sequence.ts";
import type { TokenLogprob } from "./types.ts";

/** u32s that the sampler leaves a sample: id and the bits of its log-probability. */
const DRAWN_WORDS = 2;

interface Recorded {
  readonly program: Program;
  readonly logits: Logits | undefined;
  /** (samples, 2): what was drawn. */
  readonly drawn: Slot | undefined;
  /** (samples, 2 + 2 top): target and best tokens. */
  readonly best: Slot | undefined;
  /** Of each mixture of experts, where the bucket wants them. */
  readonly routes: readonly StepRoute[];
}

/** What a step brought back: an output a sample, and logits where asked for. */
export interface StepResult {
  readonly outputs: readonly RowOutput[];
  readonly logits: readonly Float32Array[];
}

/** What every step shares. */
export interface RunnerOptions {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
  readonly model: Model;
  readonly buffers: StepBuffers;
  readonly vocabulary: number;
  readonly kvType: KvType;
  readonly precision: Precision;
  readonly profiler?: StepEncoder | undefined;
}

/** Records programs by bucket and runs batches on them. */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #arena: Arena;
  readonly #programs = new Map<string, Promise<Recorded>>();
  #staging: GPUBuffer | undefined;
  readonly counts = { dispatches: 0, submits: 0, bindGroups: 0, bytesRead: 0 };

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#arena = new Arena(options.gpu);
  }

  get arenaBytes(): number {
    return this.#arena.bytes;
  }

  /** Computes a batch. Waits for what was drawn. Throws DeviceLostError, OutOfMemoryError, GpuValidationError. */
  async run({ bucket, words, samples }: Batch): Promise<StepResult> {
    const recorded = await this.#recorded(bucket);
    const { device } = this.#options.gpu;
    const wantsLogits = samples.some(({ sequence }) => sequence.options.logits);
    const reads = this.#reads(recorded, bucket, samples.length, wantsLogits);
    const bytes = reads.reduce((sum, { size }) => sum + size, 0);
    const staging = this.#stagingFor(bytes);
    const { error } = insideErrorScopes(
      this.#options.gpu,
      () => {
        device.queue.writeBuffer(this.#options.buffers.batch, 0, words);
        const encoder = device.createCommandEncoder();
        const timed = this.#options.profiler?.encode(encoder, recorded.program, bucketTitle(bucket));
        if (timed === undefined) encode(encoder, recorded.program);
        for (const { buffer, at, size } of reads) encoder.copyBufferToBuffer(buffer, 0, staging, at, size);
        device.queue.submit([encoder.finish()]);
        timed?.();
      },
      "step",
    );
    this.counts.dispatches += recorded.program.dispatches.length;
    this.counts.submits++;
    this.counts.bytesRead += bytes;
    const failure = await error;
    if (failure !== undefined) throw failure;
    if (bytes === 0) {
      await device.queue.onSubmittedWorkDone(); // or a long prompt would be queued whole, and nothing could stop it
      return { outputs: [], logits: [] };
    }
    await this.#map(staging, bytes);
    const back = staging.getMappedRange(0, bytes).slice(0);
    staging.unmap();
    return this.#unpack(back, bucket, samples, recorded, wantsLogits);
  }

  async #map(staging: GPUBuffer, bytes: number): Promise<void> {
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, bytes);
    } catch (cause) {
      const { message } = await Promise.race([this.#options.gpu.lost, Promise.resolve({ message: String(cause) })]);
      throw new DeviceLostError(`step: the device was lost before its results came: ${message}`, { cause });
    }
  }

  #reads({ program, logits, drawn, best, routes }: Recorded, bucket: Bucket, samples: number, wantsLogits: boolean) {
    const reads: { buffer: GPUBuffer; at: number; size: number }[] = [];
    let at = 0;
    const add = (slot: Slot, size: number) => {
      reads.push({ buffer: program.bufferOf(slot), at, size });
      at += size;
    };
    if (samples === 0) return reads;
    if (drawn !== undefined) add(drawn, samples * DRAWN_WORDS * 4);
    if (best !== undefined) add(best, samples * (2 + 2 * bucket.top) * 4);
    if (wantsLogits && logits !== undefined) add(logits.slot, samples * logits.stride * 4);
    for (const { slot, slots } of routes) add(slot, samples * slots * 4); // all rows are scored: sample i is row i
    return reads;
  }

  #unpack(
    back: ArrayBuffer,
    bucket: Bucket,
    samples: Batch["samples"],
    { logits, drawn, best, routes }: Recorded,
    wantsLogits: boolean,
  ): StepResult {
    const words = new Uint32Array(back);
    const bestAt = drawn === undefined ? 0 : samples.length * DRAWN_WORDS;
    const bestWords = 2 + 2 * bucket.top;
    const logitsAt = best === undefined ? bestAt : bestAt + samples.length * bestWords;
    const word = (i: number) => words[i] ?? NONE;
    let routesAt = logitsAt + (wantsLogits && logits !== undefined ? samples.length * logits.stride : 0);
    const chosen = routes.map(({ slots, top_k }) => {
      const begin = routesAt;
      routesAt += samples.length * slots;
      return (row: number) => [...words.subarray(begin + row * slots, begin + row * slots + top_k)];
    });
    const expertsOf = (i: number) => (routes.length === 0 ? {} : { experts: chosen.map((of) => of(i)) });
    const outputs = samples.map(({ sequence, target }, i): RowOutput => {
      const at = bestAt + i * bestWords;
      const top =
        best === undefined
          ? []
          : Array.from(
              { length: sequence.options.top },
              (_, n): TokenLogprob => ({
                token: word(at + 2 + 2 * n),
                logprob: f32FromBits(word(at + 3 + 2 * n)),
              }),
            ).filter(({ token }) => token !== NONE);
      if (drawn === undefined)
        return { token: target, logprob: f32FromBits(word(at)), top, finite: word(at + 1) === 0, ...expertsOf(i) };
      return { token: word(2 * i), logprob: f32FromBits(word(2 * i + 1)), top, finite: word(2 * i) !== NONE };
    });
    const rows =
      wantsLogits && logits !== undefined
        ? samples.map((_, i) => {
            const begin = logitsAt + i * logits.stride;
            return new Float32Array(back.slice(begin * 4, (begin + this.#options.vocabulary) * 4));
          })
        : [];
    return { outputs, logits: rows };
  }

  #stagingFor(bytes: number): GPUBuffer {
    if (this.#staging !== undefined && this.#staging.size >= bytes) return this.#staging;
    const { gpu } = this.#options;
    if (this.#staging !== undefined) destroyBuffer(gpu, this.#staging);
    const size = Math.max(4096, 2 ** Math.ceil(Math.log2(Math.max(bytes, 4))));
    this.#staging = createBuffer(gpu, {
      label: "read-back",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    return this.#staging;
  }

  #recorded(bucket: Bucket): Promise<Recorded> {
    const key = JSON.stringify(bucket);
    let recorded = this.#programs.get(key);
    if (recorded === undefined) {
      recorded = this.#record(bucket);
      recorded.catch(() => this.#programs.delete(key)); // the next step may try again
      this.#programs.set(key, recorded);
    }
    return recorded;
  }

  /** Kernels of the buckets' programs, each once; nothing is compiled. */
  kernelsOf(buckets: readonly Bucket[]): CompiledKernel[] {
    const { gpu, pipelines } = this.#options;
    const recorder = new Recorder(gpu, pipelines);
    for (const bucket of buckets) this.#launch(recorder, bucket);
    return recorder.kernels;
  }

  async #record(bucket: Bucket): Promise<Recorded> {
    const { gpu, pipelines } = this.#options;
    const recorder = new Recorder(gpu, pipelines);
    const outputs = this.#launch(recorder, bucket);
    const program = await recorder.finish(this.#arena);
    this.counts.bindGroups += program.dispatches.length;
    return { program, ...outputs };
  }

  /** Records the model's pass and what makes tokens of its logits. */
  #launch(recorder: Recorder, bucket: Bucket): Omit<Recorded, "program"> {
    const { model, buffers, vocabulary, kvType, precision } = this.#options;
    const { rows, oneRowEach, splits, samples, everyRow, kind, top } = bucket;
    const routes: StepRoute[] = [];
    const shape = { rows, oneRowEach, splits, samples, everyRow, samplesAt: SAMPLES_AT };
    const step = { ...buffers, ...shape, recorder, kvType, precision, ...(bucket.routes ? { routes } : {}) };
    const logits = model.forward(step);
    let [drawn, best]: [Slot | undefined, Slot | undefined] = [undefined, undefined];
    if (logits !== undefined) {
      const params = { vocab: vocabulary, stride: logits.stride, samples: SAMPLES_AT };
      const grid = [samples, 1, 1] as const;
      if (kind === "generate") {
        drawn = recorder.slot(samples * DRAWN_WORDS * 4, "drawn", true);
        sample.launch(recorder, { buffers: { logits: logits.slot, batch: buffers.batch, out: drawn }, params, grid });
      }
      if (kind === "score" || top > 0) {
        best = recorder.slot(samples * (2 + 2 * top) * 4, "best", true);
        logProbs.launch(recorder, {
          buffers: { logits: logits.slot, batch: buffers.batch, out: best },
          params: { ...params, top },
          grid,
        });
      }
    }
    return { logits, drawn, best, routes };
  }

  async destroy(): Promise<void> {
    for (const recorded of await Promise.allSettled(this.#programs.values())) {
      if (recorded.status === "fulfilled") recorded.value.program.destroy();
    }
    this.#programs.clear();
    this.#arena.destroy();
    if (this.#staging !== undefined) destroyBuffer(this.#options.gpu, this.#staging);
  }
}
