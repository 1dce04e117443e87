/**
 * The engine: runs any number of requests at once on a loaded model, and streams what they say.
 *
 * One step, and nothing hidden behind it: schedule, lay the batch out, run the program, hand out what came, commit. While the same
 * sequences decode and nobody else has anything to do, steps follow each other on the GPU (freeRun.ts).
 */
import type { Folder } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { Answers } from "./answers.ts";
import { buildBatch } from "./batch.ts";
import { DraftModel } from "./draftModel.ts";
import { takesBack } from "./draftVocabulary.ts";
import { AbortError } from "./errors.ts";
import { FreeRuns } from "./freeRun.ts";
import { handOut } from "./handOut.ts";
import type { ReadModel } from "./loadModel.ts";
import type { MemoryPlan } from "./memoryPlan.ts";
import { ChatCompletions } from "./openai/chatCompletions.ts";
import type { EngineOptions } from "./options.ts";
import { type PageGroups, pageGroupsOf } from "./pageGroups.ts";
import type { PrecisionPlan } from "./precision.ts";
import { chatPrompt, promptTokens } from "./promptTokens.ts";
import { type RequestContext, type ResolvedRequest, resolveGenerate, resolveScore } from "./request.ts";
import { Delivery, RequestCounts } from "./requestCounts.ts";
import { type Schedule, Scheduler } from "./scheduler.ts";
import { scoreTokens } from "./scoring.ts";
import type { Sequence } from "./sequence.ts";
import { Speculation } from "./speculation.ts";
import { type Started, start } from "./start.ts";
import type {
  ChatFields,
  EngineStats,
  GenerateRequest,
  Part,
  PromptFields,
  PromptLogprobs,
  ScoreRequest,
  ScoreResult,
} from "./types.ts";

/** A loaded model that answers requests. Whoever loaded it closes it. */
export class Engine {
  /** What was read from the model's folder. */
  readonly model: ReadModel;
  readonly plan: MemoryPlan;
  readonly gpu: Gpu;
  readonly kvType: KvType;
  readonly precision: PrecisionPlan;
  /** OpenAI's way to ask: `chat.completions.create({ messages, stream })`. */
  readonly chat = { completions: new ChatCompletions(this) } as const;
  readonly #started: Started;
  readonly #pool: PageGroups;
  readonly #scheduler: Scheduler;
  readonly #speculation: Speculation;
  readonly #freeRuns: FreeRuns;
  readonly #request: RequestContext;
  readonly #counts = new RequestCounts();
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
    const started = await start(model, options);
    try {
      const draft = options.draft === undefined ? undefined : await DraftModel.load(options.draft, started, options);
      started.runner.draftScores = draft?.scores;
      return new Engine(started, draft, options.window);
    } catch (error) {
      await started.free();
      throw error;
    }
  }

  private constructor(started: Started, draft: DraftModel | undefined, window: number | undefined) {
    const { read, gpu, plan, kvType, precision, limits } = started;
    [this.model, this.plan, this.gpu, this.#started] = [read, plan, gpu, started];
    [this.kvType, this.precision] = [kvType, precision];
    this.#pool = pageGroupsOf(plan);
    this.#scheduler = new Scheduler(this.#pool, limits);
    this.#speculation = new Speculation(draft);
    const measured = (rows: number, milliseconds: number) => this.#speculation.took(rows, milliseconds);
    this.#freeRuns = new FreeRuns(started.runner, this.#scheduler, { off: gpu.off, window, measured });
    this.#request = {
      tokenizer: read.tokenizer,
      template: read.template,
      defaults: read.generation,
      stopIds: read.stopIds,
      vocabulary: read.config.vocab_size,
      context: plan.context,
      longest: plan.longest,
      trained: plan.trained,
      draft: draft !== undefined,
      takesBack: takesBack(read.model),
      randomSeed: () => Math.floor(Math.random() * 2 ** 53),
    };
  }

  /**
   * Streams the answer to a request, a part a token. Leaving the loop, or `signal`, frees what the request holds at once.
   *
   * Throws InvalidRequestError, ContextLengthError, ChatTemplateError, AbortError, NonFiniteError, DeviceLostError.
   */
  async *generate(request: GenerateRequest): AsyncGenerator<Part, void, undefined> {
    this.#checkOpen();
    const resolved = resolveGenerate(request, this.#request);
    const answers = new Answers(resolved, {
      tokenizer: this.model.tokenizer,
      ropeVariant: this.model.ropeVariant,
      shares: this.#pool.shares,
      drafting: () => this.#speculation.drafting(resolved),
      onRelease: (sequence) => this.#speculation.forget(sequence),
      onPrompt: request.onPrompt,
    });
    const { sequences } = answers;
    const delivery = new Delivery(resolved.n);
    let scored: number | undefined; // rows of a prompt whose log-probabilities are wanted
    const aborted = () => new AbortError("generate: aborted by its signal", { cause: request.signal?.reason });
    if (request.signal?.aborted === true) throw aborted();
    const stop = () => {
      for (const sequence of sequences) this.#scheduler.remove(sequence);
      answers.fail(aborted());
    };
    request.signal?.addEventListener("abort", stop, { once: true });
    this.#counts.begin();
    try {
      if (resolved.promptTop !== null)
        ({ prompt: answers.prompt, computed: scored } = await this.#promptLogprobs(resolved, request));
      for (const sequence of sequences) this.#submit(sequence);
      yield* answers.parts(delivery);
    } finally {
      request.signal?.removeEventListener("abort", stop);
      this.#counts.ended(delivery, scored ?? answers.computedTokens);
      this.#cachedTokens += answers.cachedTokens;
      for (const sequence of sequences) if (!sequence.finished) this.#scheduler.remove(sequence);
    }
  }

  /** The ids that a request's prompt stands for: its text, its messages behind the chat template, or its tokens. Throws as `applyTemplate`. */
  encode(prompt: PromptFields): readonly number[] {
    return promptTokens(prompt, this.#request);
  }

  /** The text that messages become behind the chat template. Throws InvalidRequestError, ContextLengthError, ChatTemplateError. */
  applyTemplate(chat: ChatFields): string {
    return chatPrompt(chat, this.#request).text;
  }

  /** Scores a prompt before its answer begins, which then finds its pages. */
  async #promptLogprobs(
    { tokens, promptTop, priority }: ResolvedRequest,
    { signal, onPrompt }: GenerateRequest,
  ): Promise<{ prompt: PromptLogprobs; computed: number }> {
    const { logprobs, best, computed } = await scoreTokens({
      what: "generate",
      tokens,
      top: promptTop ?? 0,
      priority,
      onProgress: onPrompt,
      signal,
      model: this.model,
      scheduler: this.#scheduler,
      submit: (sequence) => this.#submit(sequence),
    });
    return { prompt: { tokens, logprobs, top: best }, computed };
  }

  /** Log-probability of every token of a text, and the best tokens at its place. Throws as `generate`. */
  async score(request: ScoreRequest): Promise<ScoreResult> {
    this.#checkOpen();
    const { tokens, top, priority } = resolveScore(request, this.#request);
    this.#counts.begin();
    const { logprobs, best, experts, computed } = await scoreTokens({
      ...request,
      what: "score",
      tokens,
      top,
      priority,
      model: this.model,
      scheduler: this.#scheduler,
      submit: (sequence) => this.#submit(sequence),
    }).catch((error: unknown) => {
      this.#counts.fail();
      throw error;
    });
    this.#counts.scored(tokens.length, computed);
    const { tokenizer } = this.model;
    const known = logprobs.filter((value) => value !== null);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const texts = tokenizer === undefined ? null : tokens.map((id) => tokenizer.tokenText(id));
    const perplexity = known.length === 0 ? null : Math.exp(-mean);
    return { tokens, texts, logprobs, top: best, perplexity, ...(request.experts === true ? { experts } : {}) };
  }

  #submit(sequence: Sequence): void {
    this.#checkOpen(); // a prompt may have been scored meanwhile
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
        await this.#step(await this.#speculation.propose(schedule));
      }
    } catch (error) {
      for (const sequence of this.#scheduler.clear()) sequence.options.onError(error);
    } finally {
      this.#loop = undefined; // in the same turn that found nothing to do: a request a moment later starts a new one
    }
  }

  async #step(schedule: Schedule): Promise<void> {
    if (schedule.entries.length === 0) return;
    const { memory, runner } = this.#started;
    const steps = this.#freeRuns.steps(schedule);
    const batch = buildBatch(schedule, memory);
    if (steps > 1) return await this.#freeRuns.run(schedule, batch, steps);
    const result = await this.#speculation.timed(batch, () => runner.run(batch));
    const finished = handOut(batch.samples, result, (sequence) => this.#scheduler.remove(sequence));
    this.#speculation.learn(schedule);
    this.#scheduler.commit(schedule, finished);
  }

  /** The model that proposes tokens, where there is one. */
  get draft(): DraftModel | undefined {
    return this.#speculation.draft;
  }

  stats(): EngineStats {
    const { total, used, cached } = this.#pool;
    const { runner } = this.#started;
    const { draft, stats } = this.#speculation;
    const { weights, kv, arena } = draft?.memory ?? { weights: 0, kv: 0, arena: 0 };
    return {
      pages: { total, used, cached },
      running: this.#scheduler.running,
      waiting: this.#scheduler.waiting,
      preemptions: this.#scheduler.preemptions,
      requests: this.#counts.requests,
      tokens: this.#counts.tokens,
      cachedTokens: this.#cachedTokens,
      draft: stats,
      device: { ...runner.counts, lost: this.gpu.state.lost ? 1 : 0 },
      precision: this.precision,
      memory: {
        weights: this.plan.weights + weights,
        kv: this.plan.kv + kv,
        states: this.plan.states,
        arena: runner.arenaBytes + arena,
      },
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
    await this.#speculation.draft?.free();
    await this.#started.free();
  }
}
