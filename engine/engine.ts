/**
 * The engine: loads a model, runs any number of requests at once, streams what they say.
 *
 * One step, and nothing hidden behind it: schedule, lay the batch out, run the program, hand out what came, commit.
 */
import { allocateBuffer, createBuffer, destroyBuffer } from "../device/buffers.ts";
import type { Folder } from "../device/files.ts";
import { type Gpu, openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import type { KvType } from "../kernels/attention/kv_page.ts";
import { pageWords } from "../kernels/attention/kv_page.ts";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import type { CacheDeclaration } from "../models/model.ts";
import type { StepBuffers } from "../models/step.ts";
import { AnswerStream } from "./answerStream.ts";
import { type Batch, batchWords, buildBatch, MAX_ROWS } from "./batch.ts";
import { AbortError, InvalidRequestError, NonFiniteError } from "./errors.ts";
import { type LoadedModel, type LoadProgress, loadModel, type ReadModel, readModel } from "./loadModel.ts";
import { type MemoryPlan, planMemory } from "./memoryPlan.ts";
import { openModel } from "./openModel.ts";
import { PagePool } from "./pages.ts";
import { type RequestContext, resolveGenerate, resolveScore } from "./request.ts";
import { RopeTable } from "./ropeTable.ts";
import { Runner, type StepResult } from "./runner.ts";
import { type Schedule, Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import type { EngineStats, GenerateRequest, Part, ScoreRequest, ScoreResult, TokenLogprob } from "./types.ts";

/** How a model is loaded, and where. */
export interface EngineOptions {
  /** Bytes read so far, by stage. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** The memory plan, before anything is allocated. */
  readonly onPlan?: (plan: MemoryPlan, gpu: Gpu["adapter"]) => void;
  /** How keys and values are kept; f16 as unset. */
  readonly kvType?: KvType;
  /** Of activations and inner loops; both are f32 today. */
  readonly precision?: "auto" | "f32";
  /** Tokens a sequence; unset: the model's own, or what fits. */
  readonly context?: number;
  /** Bytes for keys and values of all sequences. */
  readonly kvMemory?: number;
  /** Part of an adapter's name, or its index in `ingle doctor`. */
  readonly adapter?: string;
  /** Limits of the device; "default" is WebGPU's minimum. */
  readonly limits?: "adapter" | "default" | Readonly<Record<string, number>>;
  /** Most tokens that a step computes, 1 to 64 as unset. Fewer let other requests in sooner; results are the same bits. */
  readonly rowsPerStep?: number;
  /** A device that several engines share, with what was compiled on it. Its owner closes it, after them. Unset: one of its own. */
  readonly device?: SharedDevice;
  readonly signal?: AbortSignal;
}

/** A device with what was compiled on it. */
export interface SharedDevice {
  readonly gpu: Gpu;
  readonly pipelines: PipelineCache;
}

/** Logits of a step are at most this, whatever the vocabulary. */
const MAX_LOGITS_BYTES = 32 * 2 ** 20;

/** A loaded model that answers requests. Whoever loaded it closes it. */
export class Engine {
  /** What was read from the model's folder. */
  readonly model: ReadModel;
  readonly plan: MemoryPlan;
  readonly gpu: Gpu;
  readonly kvType: KvType;
  readonly #loaded: LoadedModel;
  readonly #ownsGpu: boolean;
  readonly #buffers: StepBuffers;
  readonly #rope: RopeTable;
  readonly #pool: PagePool;
  readonly #scheduler: Scheduler;
  readonly #runner: Runner;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #request: RequestContext;
  #cachedTokens = 0;
  #loop: Promise<void> | undefined;
  #closed = false;

  /**
   * Opens an adapter and loads a model: a folder's path, an https:// folder, "default", or a Folder.
   *
   * Throws, before GPU memory is taken where that can be known: SourceError, ModelFormatError, UnsupportedModelError,
   * AdapterUnavailableError, OutOfMemoryError, AbortError.
   */
  static async load(model: string | Folder, options: EngineOptions = {}): Promise<Engine> {
    checkOptions(options);
    try {
      return await Engine.#load(model, options);
    } catch (cause) {
      if (options.signal?.aborted !== true || cause instanceof AbortError) throw cause;
      throw new AbortError("load: aborted by its signal", { cause });
    }
  }

  static async #load(model: string | Folder, options: EngineOptions): Promise<Engine> {
    const read = await readModel(await openModel(model), options.signal);
    try {
      const device = options.device ?? (await openDevice(options));
      try {
        return await Engine.#start(read, device, options);
      } catch (error) {
        if (options.device === undefined) device.gpu.close();
        throw error;
      }
    } finally {
      await read.checkpoint.close();
    }
  }

  static async #start(read: ReadModel, device: SharedDevice, options: EngineOptions): Promise<Engine> {
    const { gpu, pipelines } = device;
    const kvType = options.kvType ?? "f16";
    const wishes = {
      context: options.context,
      kvMemory: options.kvMemory,
      kvType,
      rotaryDim: read.config.rope.rotary_dim,
    };
    const plan = planMemory(gpu, read.model.caches, read.weightBytes, read.context, wishes);
    options.onPlan?.(plan, gpu.adapter);
    const loaded = await loadModel(gpu, pipelines, read, options);
    let engine: Engine;
    let kv: readonly GPUBuffer[] = [];
    try {
      kv = await allocatePages(gpu, read.model.caches, plan.pages, kvType);
      engine = new Engine(read, loaded, kv, gpu, plan, options);
    } catch (error) {
      for (const buffer of kv) destroyBuffer(gpu, buffer);
      loaded.free();
      throw error;
    }
    try {
      await engine.#warmUp();
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  }

  private constructor(
    model: ReadModel,
    loaded: LoadedModel,
    kv: readonly GPUBuffer[],
    gpu: Gpu,
    plan: MemoryPlan,
    options: EngineOptions,
  ) {
    const kvType = options.kvType ?? "f16";
    [this.model, this.plan, this.gpu, this.kvType, this.#loaded] = [model, plan, gpu, kvType, loaded];
    this.#ownsGpu = options.device === undefined;
    const { config, tokenizer } = model;
    const rows = options.rowsPerStep ?? MAX_ROWS;
    const maxSamples = logitRows(gpu, config.vocab_size);
    const limits = { rows, scoreRows: Math.min(rows, maxSamples), sequences: Math.min(rows, maxSamples) };
    this.#pool = new PagePool(plan.pages);
    this.#scheduler = new Scheduler(this.#pool, limits);
    this.#rope = new RopeTable(gpu, config.rope, plan.context, MAX_ROWS);
    const words = batchWords(limits.sequences, Math.ceil(plan.context / PAGE_TOKENS));
    this.#words = new Uint32Array(words);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const batch = createBuffer(gpu, { label: "batch", size: words * 4, usage });
    this.#buffers = { batch, rope: this.#rope.buffer, aux: loaded.aux, kv };
    const { pipelines } = loaded;
    this.#runner = new Runner({
      gpu,
      pipelines,
      model: model.model,
      buffers: this.#buffers,
      vocabulary: config.vocab_size,
      kvType,
    });
    this.#request = {
      tokenizer,
      template: model.template,
      defaults: model.generation,
      stopIds: model.stopIds,
      vocabulary: config.vocab_size,
      context: plan.context,
      randomSeed: () => Math.floor(Math.random() * 2 ** 53),
    };
  }

  /** Compiles and runs what a first token needs, on a row that belongs to nobody. */
  async #warmUp(): Promise<void> {
    const bucket = {
      rows: 1,
      oneRowEach: true,
      splits: 0,
      samples: 1,
      everyRow: true,
      kind: "generate",
      top: 0,
    } as const;
    const { words } = buildBatch({ kind: "generate", entries: [] }, this.#rope, this.#words);
    words.set([0, 0, 0xffff_ffff, 0, 0, 0, 0, 0]);
    await this.#runner.run({ bucket, words, samples: [] });
  }

  /**
   * Streams the answer to a request, a part a token. Leaving the loop, or `signal`, frees what the request holds at once.
   *
   * Throws InvalidRequestError, ContextLengthError, AbortError, NonFiniteError, DeviceLostError.
   */
  async *generate(request: GenerateRequest): AsyncGenerator<Part, void, undefined> {
    this.#checkOpen();
    const resolved = resolveGenerate(request, this.#request);
    const answer = new AnswerStream(resolved, this.model.tokenizer);
    const sequence = new Sequence({
      tokens: resolved.tokens,
      kind: "generate",
      sampling: resolved.sampling,
      top: resolved.top,
      logits: false,
      ropeVariant: this.model.ropeVariant,
      onOutput: (output) => answer.take(output, sequence),
      onComputed: (computed) => {
        const total = resolved.tokens.length;
        if (computed < total) request.onPrompt?.(computed, total);
      },
      onError: (error) => answer.fail(error),
    });
    const aborted = () => new AbortError("generate: aborted by its signal", { cause: request.signal?.reason });
    if (request.signal?.aborted === true) throw aborted();
    const stop = () => {
      this.#scheduler.remove(sequence);
      answer.fail(aborted());
    };
    request.signal?.addEventListener("abort", stop, { once: true });
    try {
      this.#submit(sequence);
      yield* answer.parts();
    } finally {
      request.signal?.removeEventListener("abort", stop);
      this.#cachedTokens += sequence.cachedTokens;
      if (!sequence.finished) this.#scheduler.remove(sequence);
    }
  }

  /** Log-probability of every token of a text, and the best tokens at its place. Throws as `generate`. */
  async score(request: ScoreRequest): Promise<ScoreResult> {
    this.#checkOpen();
    const { tokens, top } = resolveScore(request, this.#request);
    const aborted = () => new AbortError("score: aborted by its signal", { cause: request.signal?.reason });
    if (request.signal?.aborted === true) throw aborted();
    const logprobs: (number | null)[] = [null];
    const best: (readonly TokenLogprob[] | null)[] = [null];
    let told = 0; // places handed out: a sequence that gave its pages up comes by the first ones again
    let stop = () => {};
    const done = new Promise<void>((resolve, reject) => {
      const sequence: Sequence = new Sequence({
        tokens,
        kind: "score",
        sampling: { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0 },
        top,
        logits: request.onLogits !== undefined,
        ropeVariant: this.model.ropeVariant,
        onOutput: (output, position, logits) => {
          if (position < told) return false;
          told++;
          request.onProgress?.(position + 1, tokens.length);
          if (logits !== undefined) request.onLogits?.(position, logits);
          if (!output.finite) throw new NonFiniteError(`score: the logits after token ${position} are not finite`);
          const last = position === tokens.length - 1;
          if (last) resolve();
          else [logprobs[position + 1], best[position + 1]] = [output.logprob, output.top];
          return last;
        },
        onError: reject,
      });
      stop = () => {
        this.#scheduler.remove(sequence);
        reject(aborted());
      };
      this.#submit(sequence);
    });
    request.signal?.addEventListener("abort", stop, { once: true });
    try {
      await done;
    } finally {
      request.signal?.removeEventListener("abort", stop);
    }
    const { tokenizer } = this.model;
    const known = logprobs.filter((value) => value !== null);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const texts = tokenizer === undefined ? null : tokens.map((id) => tokenizer.tokenText(id));
    return { tokens, texts, logprobs, top: best, perplexity: Math.exp(-mean) };
  }

  #submit(sequence: Sequence): void {
    this.#scheduler.add(sequence);
    this.#loop ??= this.#run();
  }

  /** Steps until there is nothing to do. What goes wrong in a step fails every request in the engine. */
  async #run(): Promise<void> {
    await undefined; // requests made in one go share the first step
    try {
      for (;;) {
        const schedule = this.#scheduler.next();
        if (schedule === undefined) return;
        if (schedule.entries.length > 0) await this.#step(schedule);
      }
    } catch (error) {
      for (const sequence of this.#scheduler.clear()) sequence.options.onError(error);
    } finally {
      this.#loop = undefined; // in the same turn that found nothing to do: a request a moment later starts a new one
    }
  }

  async #step(schedule: Schedule): Promise<void> {
    const batch = buildBatch(schedule, this.#rope, this.#words);
    const result = await this.#runner.run(batch);
    const finished = handOut(batch, result, (sequence) => this.#scheduler.remove(sequence));
    this.#scheduler.commit(schedule, finished);
  }

  stats(): EngineStats {
    const { total, used, cached } = this.#pool;
    return {
      pages: { total, used, cached },
      running: this.#scheduler.running,
      waiting: this.#scheduler.waiting,
      preemptions: this.#scheduler.preemptions,
      cachedTokens: this.#cachedTokens,
      device: { ...this.#runner.counts },
      memory: { weights: this.plan.weights, kv: this.plan.kv, arena: this.#runner.arenaBytes },
    };
  }

  #checkOpen(): void {
    if (this.#closed) throw new AbortError("engine: is closed; load it again");
  }

  /** Ends every request with AbortError and frees the device. May be called twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const sequence of this.#scheduler.clear()) sequence.options.onError(new AbortError("engine: was closed"));
    await this.#loop;
    await this.#runner.destroy();
    this.#rope.destroy();
    for (const buffer of [this.#buffers.batch, ...this.#buffers.kv]) destroyBuffer(this.gpu, buffer);
    this.#loaded.free();
    if (this.#ownsGpu) this.gpu.close();
  }
}

/** Gives each sequence its outputs; returns those that are done. One that fails is removed, so that nobody shares its pages. */
function handOut(
  { samples }: Batch,
  { outputs, logits }: StepResult,
  remove: (sequence: Sequence) => void,
): Set<Sequence> {
  const finished = new Set<Sequence>();
  samples.forEach(({ sequence, position }, i) => {
    const output = outputs[i];
    if (sequence.finished || finished.has(sequence) || output === undefined) return;
    try {
      if (sequence.options.onOutput(output, position, logits[i])) finished.add(sequence);
    } catch (error) {
      remove(sequence);
      sequence.options.onError(error);
    }
  });
  return finished;
}

/** Rows whose logits fit a buffer: a power of two, at most MAX_ROWS. */
function logitRows({ limits }: Gpu, vocabulary: number): number {
  const row = Math.ceil(vocabulary / 32) * 32 * 4;
  const bytes = Math.min(MAX_LOGITS_BYTES, limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  return Math.max(Math.min(2 ** Math.floor(Math.log2(bytes / row)), MAX_ROWS), 1);
}

/** Pages of every layer. The caller owns them. */
async function allocatePages(
  gpu: Gpu,
  caches: readonly CacheDeclaration[],
  pages: number,
  kvType: KvType,
): Promise<readonly GPUBuffer[]> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const kv: GPUBuffer[] = [];
  try {
    for (const [layer, { kvHeads, headDim }] of caches.entries()) {
      const size = pages * pageWords(kvType, kvHeads, headDim) * 4;
      kv.push(await allocateBuffer(gpu, { label: `layers.${layer} kv`, size, usage }));
    }
    return kv;
  } catch (error) {
    for (const buffer of kv) destroyBuffer(gpu, buffer);
    throw error;
  }
}

async function openDevice({ adapter, limits }: EngineOptions): Promise<SharedDevice> {
  const gpu = await openGpu({
    ...(adapter === undefined ? {} : { adapter }),
    ...(limits === undefined ? {} : { limits }),
  });
  return { gpu, pipelines: new PipelineCache(gpu) };
}

function checkOptions({ precision, kvType, rowsPerStep, context, kvMemory }: EngineOptions): void {
  checkInteger("rowsPerStep", rowsPerStep, 1, MAX_ROWS);
  checkInteger("context", context, 2, 2 ** 31); // a token of the prompt, and one of the answer
  checkInteger("kvMemory", kvMemory, 1, Number.MAX_SAFE_INTEGER);
  if (precision !== undefined && precision !== "auto" && precision !== "f32") {
    throw new InvalidRequestError(
      `precision: is ${JSON.stringify(precision)}, expected auto or f32; f16 products do not exist yet`,
    );
  }
  if (kvType !== undefined && kvType !== "f16" && kvType !== "f32") {
    throw new InvalidRequestError(`kvType: is ${JSON.stringify(kvType)}, expected f16 or f32`);
  }
}

function checkInteger(field: string, value: number | undefined, min: number, max: number): void {
  if (value !== undefined && !(Number.isInteger(value) && value >= min && value <= max))
    throw new InvalidRequestError(`${field}: is ${value}, expected an integer from ${min} to ${max}`);
}
