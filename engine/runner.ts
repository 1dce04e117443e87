/**
 * The runner: one program a bucket, recorded once; a step is one write, one submit and a few bytes read back.
 *
 * Steps in which all decode may follow each other instead, several a submit and nothing written between them (advance.ts).
 */

import { Arena } from "../device/arena.ts";
import { allocateBuffer, destroyBuffer } from "../device/buffers.ts";
import type { CompiledKernel } from "../device/pipelines.ts";
import { encode, type Program } from "../device/program.ts";
import { insideErrorScopes } from "../device/scopes.ts";
import { powerOfTwo } from "../kernels/fragments/batch.ts";
import { type Batch, type Bucket, bucketAhead, bucketKey, bucketTitle } from "./batch.ts";
import type { DraftScores } from "./draftScores.ts";
import { PageCopies } from "./pageCopies.ts";
import { layerPageBytes } from "./pageSizes.ts";
import { ReadBack } from "./readBack.ts";
import type { RowOutput } from "./sequence.ts";
import { logitRows, outputsOf, type Read } from "./stepOutputs.ts";
import { kernelsOfSteps, type Recorded, recordStep, type StepExtras, type StepOptions } from "./stepProgram.ts";

/** Of the buffer of rules: some thousand tokens, so that few answers outgrow it. */
const LEAST_LIST_BYTES = 2 ** 16;

/** Scores that are to outlive a step: where those of each sample go, or undefined. */
export interface KeptScores {
  readonly scores: DraftScores;
  readonly rows: readonly (number | undefined)[];
}

/** What a step brought back: an output a sample, and logits where asked for. */
export interface StepResult {
  readonly outputs: readonly RowOutput[];
  readonly logits: readonly Float32Array[];
}

/** What every step shares, and what its programs are called. */
export interface RunnerOptions extends StepOptions {
  /** What steps are called in a profile, before what they compute. */
  readonly title: string;
}

/** Records programs by bucket and runs batches on them. */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #arena: Arena;
  readonly #programs = new Map<number, Recorded>();
  readonly #copies: PageCopies;
  readonly #readBack: ReadBack;
  /** Rules of samples, where a request ever had some. */
  #lists: GPUBuffer | undefined;
  /** Where a draft leaves the scores of its proposals; undefined without one. */
  draftScores: DraftScores | undefined;
  readonly counts = { dispatches: 0, submits: 0, writes: 0, waits: 0, bindGroups: 0, bytesRead: 0, encodeMs: 0 };

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#arena = new Arena(options.gpu);
    const { gpu, model, buffers, kvType } = options;
    const layers = model.caches.flatMap((cache, i) => {
      const buffer = buffers.kv[i];
      const group = buffers.groups[i] ?? 0;
      return buffer === undefined ? [] : [{ group, buffer, pageBytes: layerPageBytes(cache, kvType) }];
    });
    this.#copies = new PageCopies(gpu, layers);
    this.#readBack = new ReadBack(options.gpu);
  }

  get arenaBytes(): number {
    return this.#arena.bytes;
  }

  /**
   * Computes a batch, one at a time. Waits for what was drawn. Throws DeviceLostError, OutOfMemoryError, GpuValidationError.
   *
   * In the steady state nothing is made but what WebGPU asks for: an encoder, a mapping, promises.
   */
  async run(batch: Batch, keep?: KeptScores): Promise<StepResult> {
    const { bucket, samples, lists } = batch;
    if (bucket.adjusted) await this.#holdLists(lists.byteLength);
    const recorded = await this.#recorded(bucket);
    const { gpu, vocabulary } = this.#options;
    const logits = samples.some(({ sequence }) => sequence.options.logits) ? recorded.logits : undefined;
    const tokenBytes = 4 * recorded.words * samples.length;
    const bytes = tokenBytes + (logits === undefined ? 0 : samples.length * logits.stride * 4);
    const submit = () => this.#submit(recorded, batch, { tokenBytes, bytes, keep });
    const { value: staging, error: found } = insideErrorScopes(gpu, submit, "step");
    const error = this.#dropCopies(found);
    this.counts.waits++;
    this.counts.bytesRead += bytes;
    if (staging === undefined) {
      await this.#readBack.settled(error);
      await gpu.waitFor(gpu.device.queue.onSubmittedWorkDone()); // or a long prompt would be queued whole, and nothing could stop it
      return { outputs: [], logits: [] };
    }
    return await this.#readBack.read(staging, bytes, error, (back) => {
      const outputs = outputsOf(new Uint32Array(back, 0, tokenBytes / 4), samples, recorded);
      if (logits === undefined) return { outputs, logits: [] };
      return { outputs, logits: logitRows(back, tokenBytes, samples.length, logits.stride, vocabulary) };
    });
  }

  /** What the scopes of a step found: then the buffer of its copies may have found no memory, and goes with it. */
  async #dropCopies(found: Promise<Error | undefined>): Promise<Error | undefined> {
    const error = await found;
    if (error !== undefined) this.#copies.destroy();
    return error;
  }

  /** Records what `runAhead` needs for so many steps of a batch in which all decode. */
  async prepare(batch: Batch, steps: number): Promise<void> {
    if (batch.bucket.adjusted) await this.#holdLists(batch.lists.byteLength);
    for (let i = 0; i < steps; i++) await this.#recorded(bucketAhead(batch, i));
  }

  /**
   * Submits steps `first` … `first + steps - 1` of a batch in which all decode, each computed from what the one before drew; returns
   * the outputs of each once they are there. Step 0 writes the batch; those behind it need nothing. Two calls may be on their way at
   * once. `keep`: as for `run`, of each step. Throws as `run`, and RangeError for what was not prepared.
   */
  async runAhead(
    batch: Batch,
    first: number,
    steps: number,
    keep: readonly KeptScores[] = [],
  ): Promise<readonly (readonly RowOutput[])[]> {
    const { samples } = batch;
    const all = Array.from({ length: steps }, (_, i) => this.#prepared(bucketAhead(batch, first + i)));
    const words = (all[0]?.words ?? 0) * samples.length;
    const bytes = 4 * words * steps;
    const submit = () => {
      const staging = this.#readBack.take(bytes);
      if (first === 0) this.#write(batch);
      this.#encodeSteps(all, staging, batch, keep);
      return staging;
    };
    const { value: staging, error } = insideErrorScopes(this.#options.gpu, submit, "steps");
    this.counts.waits++;
    this.counts.bytesRead += bytes;
    return await this.#readBack.read(staging, bytes, error, (back) =>
      all.map((recorded, i) => outputsOf(new Uint32Array(back, 4 * words * i, words), samples, recorded)),
    );
  }

  #prepared(bucket: Bucket): Recorded {
    const recorded = this.#programs.get(bucketKey(bucket));
    if (recorded === undefined) throw new RangeError(`${bucketTitle(bucket)}: not recorded, expected prepare first`);
    return recorded;
  }

  /** Encodes steps with the copies of what is read back of each, and submits them. */
  #encodeSteps(
    all: readonly Recorded[],
    staging: GPUBuffer,
    { samples, rows }: Batch,
    keep: readonly KeptScores[],
  ): void {
    const encoder = this.#options.gpu.device.createCommandEncoder();
    let at = 0;
    const timed = all.map((recorded, i) => {
      const done = this.#encode(encoder, recorded.program, recorded, rows);
      at = copyReads(encoder, recorded.reads, samples.length, staging, at);
      copyScores(encoder, recorded, keep[i]);
      return done;
    });
    this.#options.gpu.device.queue.submit([encoder.finish()]);
    this.counts.submits++;
    for (const done of timed) done?.();
  }

  /** Submits the program and copies of what is read back, to the buffer that it returns; undefined where nothing is. */
  #submit(
    recorded: Recorded,
    batch: Batch,
    { tokenBytes, bytes, keep }: { tokenBytes: number; bytes: number; keep: KeptScores | undefined },
  ): GPUBuffer | undefined {
    const { step, program, logits, reads } = recorded;
    const { device } = this.#options.gpu;
    const staging = bytes === 0 ? undefined : this.#readBack.take(bytes);
    this.#write(batch);
    const encoder = device.createCommandEncoder();
    this.#copies.encode(encoder, batch.copies);
    const timed = this.#encode(encoder, step, recorded, batch.rows);
    if (staging !== undefined) copyReads(encoder, reads, batch.samples.length, staging, 0);
    if (staging !== undefined && bytes > tokenBytes && logits !== undefined)
      encoder.copyBufferToBuffer(program.bufferOf(logits.slot), 0, staging, tokenBytes, bytes - tokenBytes);
    copyScores(encoder, recorded, keep);
    device.queue.submit([encoder.finish()]);
    this.counts.submits++;
    timed?.();
    return staging;
  }

  #write({ words, lists }: Batch): void {
    const { gpu, buffers } = this.#options;
    gpu.device.queue.writeBuffer(buffers.batch, 0, words);
    this.counts.writes++;
    if (this.#lists === undefined || lists.length === 0) return;
    gpu.device.queue.writeBuffer(this.#lists, 0, lists);
    this.counts.writes++;
  }

  /** Encodes a step's dispatches; returns what a profiler wants to be called behind the submission. */
  #encode(
    encoder: GPUCommandEncoder,
    step: Program,
    { bucket, experts }: Recorded,
    rows: number,
  ): (() => void) | undefined {
    const { profiler, title } = this.#options;
    this.counts.dispatches += step.dispatches.length;
    const timed = profiler?.encode(encoder, step, `${title}${bucketTitle(bucket)}`, { rows, experts });
    if (timed !== undefined) return timed;
    const start = performance.now();
    encode(encoder, step);
    this.counts.encodeMs += performance.now() - start;
    return undefined;
  }

  /** Makes room for rules. A longer buffer is another one, so that programs with the one before are recorded again. */
  async #holdLists(bytes: number): Promise<void> {
    if (this.#lists !== undefined && this.#lists.size >= bytes) return;
    const { gpu } = this.#options;
    const size = Math.max(LEAST_LIST_BYTES, powerOfTwo(bytes));
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
    const recorded = await recordStep(bucket, this.#arena, this.#options, this.#extras);
    this.counts.bindGroups += recorded.program.dispatches.length;
    this.#programs.set(key, recorded);
    return recorded;
  }

  /** Kernels of the buckets' programs, each once; nothing is compiled. */
  kernelsOf(buckets: readonly Bucket[]): CompiledKernel[] {
    return kernelsOfSteps(buckets, this.#options, this.#extras);
  }

  get #extras(): StepExtras {
    return { lists: this.#lists, draftScores: this.draftScores };
  }

  destroy(): void {
    for (const { program } of this.#programs.values()) program.destroy();
    this.#programs.clear();
    this.#arena.destroy();
    this.#copies.destroy();
    this.#readBack.destroy();
    if (this.#lists !== undefined) destroyBuffer(this.#options.gpu, this.#lists);
  }
}

/** Copies what is read back of a step, one buffer behind the other from `at` on; returns where they end. */
function copyReads(
  encoder: GPUCommandEncoder,
  reads: readonly Read[],
  samples: number,
  to: GPUBuffer,
  at: number,
): number {
  let end = at;
  for (const { buffer, words } of reads) {
    const size = 4 * words * samples;
    encoder.copyBufferToBuffer(buffer, 0, to, end, size);
    end += size;
  }
  return end;
}

/** Copies what a step drew from to where it is kept. */
function copyScores(
  encoder: GPUCommandEncoder,
  { program, logits, scores: slot }: Recorded,
  keep: KeptScores | undefined,
): void {
  if (keep === undefined || logits === undefined || slot === undefined) return;
  const { scores, rows } = keep;
  const from = program.bufferOf(slot);
  for (const [i, row] of rows.entries()) {
    if (row === undefined) continue;
    encoder.copyBufferToBuffer(
      from,
      i * logits.stride * 4,
      scores.buffer,
      row * scores.stride * 4,
      scores.vocabulary * 4,
    );
  }
}
