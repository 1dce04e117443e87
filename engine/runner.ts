/**
 * The runner: one program a bucket, recorded once; a step is one write, one submit and a few bytes read back.
 */
import { Arena, type Slot } from "../device/arena.ts";
import { allocateBuffer, createBuffer, destroyBuffer } from "../device/buffers.ts";
import { DeviceLostError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel, PipelineCache } from "../device/pipelines.ts";
import type { ChosenExperts, StepEncoder } from "../device/profiler.ts";
import { encode, type Program, Recorder } from "../device/program.ts";
import { insideErrorScopes } from "../device/scopes.ts";
import { ADJUST_CHUNK, adjust } from "../kernels/adjust.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { logProbs } from "../kernels/log_probs.ts";
import { sample } from "../kernels/sample.ts";
import type { Precision } from "../kernels/xFrom.ts";
import type { Logits, Model } from "../models/model.ts";
import type { StepBuffers, StepRoute } from "../models/step.ts";
import { type Batch, type Bucket, bucketKey, bucketTitle, SAMPLES_AT } from "./batch.ts";
import { layerPageBytes } from "./memoryPlan.ts";
import { PageCopies } from "./pageCopies.ts";
import type { RowOutput } from "./sequence.ts";
import { bestWords, DRAWN_WORDS, logitRows, type OutputReads, outputsOf, type Read } from "./stepOutputs.ts";

/** A program with what is read back of it, all in buffers of its own. */
interface Recorded extends OutputReads {
  readonly program: Program;
  readonly bucket: Bucket;
  readonly logits: Logits | undefined;
  /** Of each mixture of experts, where the profiler wants them. */
  readonly experts: readonly ChosenExperts[];
}

/** What a recording leaves besides its launches. */
interface Launched {
  readonly logits: Logits | undefined;
  /** (samples, DRAWN_WORDS) */
  readonly drawn: Slot | undefined;
  /** (samples, bestWords(top)) */
  readonly best: Slot | undefined;
  /** Of each mixture of experts, where the bucket or the profiler wants them. */
  readonly routes: readonly StepRoute[];
}

const NOTHING: readonly Read[] = [];
/** Of the buffer of rules: some thousand tokens, so that few answers outgrow it. */
const LEAST_LIST_BYTES = 2 ** 16;

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
  /** What steps are called in a profile, before what they compute. */
  readonly title: string;
}

/** Records programs by bucket and runs batches on them. */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #arena: Arena;
  readonly #programs = new Map<number, Recorded>();
  readonly #copies: PageCopies;
  #staging: GPUBuffer | undefined;
  /** Rules of samples, where a request ever had some. */
  #lists: GPUBuffer | undefined;
  readonly counts = { dispatches: 0, submits: 0, bindGroups: 0, bytesRead: 0, encodeMs: 0 };

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#arena = new Arena(options.gpu);
    const { gpu, model, buffers, kvType } = options;
    const layers = model.caches.flatMap((cache, i) => {
      const buffer = buffers.kv[i];
      return buffer === undefined ? [] : [{ buffer, pageBytes: layerPageBytes(cache, kvType) }];
    });
    this.#copies = new PageCopies(gpu, layers);
  }

  get arenaBytes(): number {
    return this.#arena.bytes;
  }

  /**
   * Computes a batch, one at a time. Waits for what was drawn. Throws DeviceLostError, OutOfMemoryError, GpuValidationError.
   *
   * In the steady state nothing is made but what WebGPU asks for: an encoder, a mapping, promises.
   */
  async run(batch: Batch): Promise<StepResult> {
    const { bucket, samples, lists } = batch;
    if (bucket.adjusted) await this.#holdLists(lists.byteLength);
    const recorded = await this.#recorded(bucket);
    const { gpu, vocabulary } = this.#options;
    const logits = samples.some(({ sequence }) => sequence.options.logits) ? recorded.logits : undefined;
    const tokenBytes = 4 * recorded.words * samples.length;
    const bytes = tokenBytes + (logits === undefined ? 0 : samples.length * logits.stride * 4);
    const { value: staging, error } = insideErrorScopes(
      gpu,
      () => this.#submit(recorded, batch, tokenBytes, bytes),
      "step",
    );
    this.counts.dispatches += recorded.program.dispatches.length;
    this.counts.submits++;
    this.counts.bytesRead += bytes;
    const mapped = bytes === 0 ? undefined : staging.mapAsync(GPUMapMode.READ, 0, bytes);
    mapped?.catch(() => undefined); // what the scopes say comes first
    await this.#settled(error);
    if (mapped === undefined) {
      await gpu.device.queue.onSubmittedWorkDone(); // or a long prompt would be queued whole, and nothing could stop it
      return { outputs: [], logits: [] };
    }
    await this.#arrived(mapped);
    const back = staging.getMappedRange(0, bytes);
    try {
      const outputs = outputsOf(new Uint32Array(back, 0, tokenBytes / 4), samples, recorded);
      if (logits === undefined) return { outputs, logits: [] };
      return { outputs, logits: logitRows(back, tokenBytes, samples.length, logits.stride, vocabulary) };
    } finally {
      staging.unmap();
    }
  }

  /** Submits the program and copies of what is read back, to the buffer that it returns. */
  #submit(
    { program, logits, reads, experts }: Recorded,
    { bucket, rows, words, lists, samples, copies }: Batch,
    tokenBytes: number,
    bytes: number,
  ): GPUBuffer {
    const { gpu, buffers, profiler, title } = this.#options;
    const { queue } = gpu.device;
    const staging = this.#stagingFor(bytes);
    queue.writeBuffer(buffers.batch, 0, words);
    if (this.#lists !== undefined && lists.length > 0) queue.writeBuffer(this.#lists, 0, lists);
    const encoder = gpu.device.createCommandEncoder();
    this.#copies.encode(encoder, copies);
    const timed = profiler?.encode(encoder, program, `${title}${bucketTitle(bucket)}`, { rows, experts });
    if (timed === undefined) {
      const start = performance.now();
      encode(encoder, program);
      this.counts.encodeMs += performance.now() - start;
    }
    let at = 0;
    for (const { buffer, words: each } of samples.length === 0 ? NOTHING : reads) {
      const size = 4 * each * samples.length;
      encoder.copyBufferToBuffer(buffer, 0, staging, at, size);
      at += size;
    }
    if (bytes > tokenBytes && logits !== undefined)
      encoder.copyBufferToBuffer(program.bufferOf(logits.slot), 0, staging, tokenBytes, bytes - tokenBytes);
    queue.submit([encoder.finish()]);
    timed?.();
    return staging;
  }

  /** Throws what the scopes found; a read-back buffer that may be of no use, or waits for its mapping, goes with it. */
  async #settled(error: Promise<Error | undefined>): Promise<void> {
    const failure = await error.catch((lost: unknown) => lost);
    if (failure === undefined) return;
    if (this.#staging !== undefined) destroyBuffer(this.#options.gpu, this.#staging);
    this.#staging = undefined;
    throw failure;
  }

  async #arrived(mapped: Promise<undefined>): Promise<void> {
    try {
      await mapped;
    } catch (cause) {
      const { message } = await Promise.race([this.#options.gpu.lost, Promise.resolve({ message: String(cause) })]);
      throw new DeviceLostError(`step: the device was lost before its results came: ${message}`, { cause });
    }
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

  /** Makes room for rules. A longer buffer is another one, so that programs with the one before are recorded again. */
  async #holdLists(bytes: number): Promise<void> {
    if (this.#lists !== undefined && this.#lists.size >= bytes) return;
    const { gpu } = this.#options;
    const size = Math.max(LEAST_LIST_BYTES, 2 ** Math.ceil(Math.log2(Math.max(bytes, 4))));
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const lists = await allocateBuffer(gpu, { label: "rules", size, usage });
    for (const [key, { bucket, program }] of this.#programs) {
      if (!bucket.adjusted) continue;
      program.destroy();
      this.#programs.delete(key);
    }
    if (this.#lists !== undefined) destroyBuffer(gpu, this.#lists);
    this.#lists = lists;
  }

  /** The bucket's program, recorded where it is met first. */
  async #recorded(bucket: Bucket): Promise<Recorded> {
    const key = bucketKey(bucket);
    const known = this.#programs.get(key);
    if (known !== undefined) return known;
    const recorded = await this.#record(bucket);
    this.#programs.set(key, recorded);
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
    const { logits, drawn, best, routes: all } = this.#launch(recorder, bucket);
    const routes = bucket.routes ? all : [];
    const program = await recorder.finish(this.#arena);
    this.counts.bindGroups += program.dispatches.length;
    const read = (slot: Slot, words: number): Read => ({ buffer: program.bufferOf(slot), words });
    const reads = [
      ...(drawn === undefined ? [] : [read(drawn, DRAWN_WORDS)]),
      ...(best === undefined ? [] : [read(best, bestWords(bucket.top))]),
      ...routes.map(({ slot, slots }) => read(slot, slots)), // all rows are scored: sample i is row i
    ];
    const words = reads.reduce((sum, each) => sum + each.words, 0);
    const has = { drawn: drawn !== undefined, top: best === undefined ? null : bucket.top };
    const experts = all.map(({ slot, ...shape }) => ({ buffer: program.bufferOf(slot), ...shape }));
    return { program, bucket, logits, reads, words, ...has, routes, experts };
  }

  /** Records the model's pass and what makes tokens of its logits. */
  #launch(recorder: Recorder, bucket: Bucket): Launched {
    const { model, buffers, vocabulary, kvType, precision, profiler } = this.#options;
    const { rows, oneRowEach, splits, samples, everyRow, kind, top } = bucket;
    const routes: StepRoute[] = [];
    const shape = { rows, oneRowEach, splits, samples, everyRow, samplesAt: SAMPLES_AT };
    const kept = bucket.routes || profiler?.wantsExperts === true ? { routes } : {};
    const step = { ...buffers, ...shape, recorder, kvType, precision, ...kept };
    const logits = model.forward(step);
    let [drawn, best]: [Slot | undefined, Slot | undefined] = [undefined, undefined];
    if (logits !== undefined) {
      const params = { vocab: vocabulary, stride: logits.stride, samples: SAMPLES_AT };
      const grid = [samples, 1, 1] as const;
      if (kind === "generate") {
        drawn = recorder.slot(samples * DRAWN_WORDS * 4, "drawn", true);
        const scores = bucket.adjusted ? this.#adjust(recorder, logits, samples) : logits.slot;
        sample.launch(recorder, {
          buffers: { logits: logits.slot, scores, batch: buffers.batch, out: drawn },
          params: { ...params, adjusted: bucket.adjusted ? 1 : 0 },
          grid,
        });
      }
      if (kind === "score" || top > 0) {
        best = recorder.slot(samples * bestWords(top) * 4, "best", true);
        logProbs.launch(recorder, {
          buffers: { logits: logits.slot, batch: buffers.batch, out: best },
          params: { ...params, top },
          grid,
        });
      }
    }
    return { logits, drawn, best, routes };
  }

  /** What rules leave of logits. */
  #adjust(recorder: Recorder, { slot, stride }: Logits, samples: number): Slot {
    const { buffers, vocabulary } = this.#options;
    const scores = recorder.slot(samples * stride * 4, "scores");
    // Where kernels are only listed, nothing is bound: any buffer stands for the rules.
    const lists = this.#lists ?? buffers.batch;
    adjust.launch(recorder, {
      buffers: { logits: slot, batch: buffers.batch, lists, scores },
      params: { vocab: vocabulary, stride, samples: SAMPLES_AT },
      grid: [Math.ceil(vocabulary / ADJUST_CHUNK), samples, 1],
    });
    return scores;
  }

  destroy(): void {
    for (const { program } of this.#programs.values()) program.destroy();
    this.#programs.clear();
    this.#arena.destroy();
    this.#copies.destroy();
    for (const buffer of [this.#staging, this.#lists])
      if (buffer !== undefined) destroyBuffer(this.#options.gpu, buffer);
  }
}
