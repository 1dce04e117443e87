/**
 * Proposals from a smaller model with the same vocabulary, on the same device: its own weights, pages and programs.
 *
 * It has a copy of each sequence that it serves, which follows the target's: proposals that were not taken are rolled back, and
 * tokens that it has not read are read first. A copy that finds no page, or has too much to read for one step, proposes nothing;
 * nobody waits for it.
 */
import type { Folder } from "../device/files.ts";
import { PURPOSE } from "../kernels/fragments/philox.ts";
import { NONE } from "../kernels/kernel.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import { buildBatch } from "./batch.ts";
import { DraftScores } from "./draftScores.ts";
import type { EngineOptions } from "./options.ts";
import { type PageGroups, pageGroupsOf } from "./pageGroups.ts";
import type { Proposal, Proposer, Wanted } from "./proposer.ts";
import type { KeptScores } from "./runner.ts";
import type { SamplingParams } from "./samplingParams.ts";
import type { Scheduled } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { type Started, start } from "./start.ts";
import { StepTimes } from "./stepTimes.ts";

/** A sequence of the target, and the draft's copy of it in the current step. */
interface Copy {
  readonly wanted: Wanted;
  readonly sequence: Sequence;
  readonly proposals: number[];
  /** Rows of the scores that they were drawn from, where chance was in it. */
  readonly drafted: number[];
  /** Whether the last step gave it a proposal, behind which another one may come. */
  goesOn: boolean;
}

/** A copy with the rows that its next step has. */
interface Entry {
  readonly copy: Copy;
  readonly scheduled: Scheduled;
}

/**
 * Whether proposals have random numbers of their own, and are verified. Where the request gave a seed they have those of the
 * target's draws instead: one that is the target's own draw is taken, so that the answer depends on the seed alone.
 */
const drawsByChance = ({ temperature, seeded }: SamplingParams): boolean => temperature > 0 && !seeded;

/** Proposals that are still wanted. */
const missing = ({ wanted, proposals }: Copy): number => wanted.k - proposals.length;

/** A loaded draft model. Whoever loaded it frees it. */
export class DraftModel implements Proposer {
  readonly #started: Started;
  readonly #pool: PageGroups;
  readonly #copies = new Map<Sequence, Sequence>();
  readonly scores: DraftScores;
  /** Milliseconds of its steps of one row a sequence, by sequences; and of those that read, by rows. */
  readonly times = new StepTimes();
  readonly #reading = new StepTimes();

  /**
   * Loads the draft of a started target. Throws as `Engine.load`, InvalidRequestError where the two have other vocabularies, and
   * UnsupportedModelError where it cannot take tokens back.
   */
  static async load(model: string | Folder, target: Started, options: EngineOptions): Promise<DraftModel> {
    const { context: _, kvMemory: __, onPlan: ___, ...shared } = options;
    return new DraftModel(await start(model, { ...shared, target }));
  }

  private constructor(started: Started) {
    this.#started = started;
    this.#pool = pageGroupsOf(started.plan);
    const { gpu, limits, vocabulary } = started;
    this.scores = new DraftScores(gpu, { rows: limits.scoreRows, stride: vocabulary, vocabulary });
  }

  /** Bytes that it takes on the GPU. */
  get memory(): { readonly weights: number; readonly kv: number; readonly arena: number } {
    const { plan, runner } = this.#started;
    return { weights: plan.weights, kv: plan.kv, arena: runner.arenaBytes };
  }

  /** Pages that copies hold. */
  get usedPages(): number {
    return this.#pool.used;
  }

  /** What it is of, for reports and benchmarks. */
  get started(): Started {
    return this.#started;
  }

  most({ tokens }: Sequence): number {
    return Math.max(this.#started.plan.context - tokens.length + 1, 0);
  }

  behind(sequence: Sequence): number {
    return sequence.tokens.length - (this.#copies.get(sequence)?.computed ?? 0);
  }

  /** Milliseconds to read so many tokens. */
  readingTime(tokens: number): number {
    const { rows } = this.#started.limits;
    const whole = Math.floor(tokens / rows);
    const rest = tokens % rows;
    return whole * this.#reading.atLeast(rows) + (rest === 0 ? 0 : this.#reading.atLeast(rest));
  }

  forget(sequence: Sequence): void {
    const copy = this.#copies.get(sequence);
    this.#copies.delete(sequence);
    copy?.release(this.#pool);
  }

  async propose(wanted: readonly Wanted[]): Promise<readonly Proposal[]> {
    this.scores.begin();
    const copies = wanted.map(
      (each): Copy => ({
        wanted: each,
        sequence: this.#follow(each.sequence),
        proposals: [],
        drafted: [],
        goesOn: false,
      }),
    );
    await this.#read(copies);
    for (;;) {
      const going = this.#reserved(
        copies.filter((copy) => copy.goesOn && this.#serves(copy)),
        () => 1,
      );
      if (going.length === 0) break;
      await this.#run(going, this.times);
    }
    return copies.map(({ proposals, drafted }) => ({
      tokens: proposals,
      drafted: drafted.length > 0 ? drafted : undefined,
    }));
  }

  /** The copy, with the tokens of the target's and nothing else. */
  #follow(target: Sequence): Sequence {
    const copy = this.#copies.get(target) ?? this.#newCopy(target);
    copy.rollBack(this.#pool, target.tokens);
    copy.publish(this.#pool);
    return copy;
  }

  #newCopy(target: Sequence): Sequence {
    const { tokens, sampling } = target.options;
    const copy = new Sequence({
      tokens,
      kind: "generate",
      sampling,
      purpose: drawsByChance(sampling) ? PURPOSE.draft : PURPOSE.sample,
      top: 0,
      logits: false,
      experts: false,
      ropeVariant: this.#started.read.ropeVariant,
      onOutput: () => false,
      onError: () => {},
    });
    copy.tokens.push(...target.tokens.slice(tokens.length));
    copy.shareFrom(this.#pool);
    this.#copies.set(target, copy);
    return copy;
  }

  /** What copies have not read. Those that have read all have their first proposal then, or more. */
  async #read(copies: readonly Copy[]): Promise<void> {
    let rows = this.#started.limits.rows;
    const samples = this.#started.limits.scoreRows;
    const reading = copies.slice(0, samples).filter(({ wanted, sequence }) => wanted.computed > sequence.computed);
    const entries = this.#reserved(reading, ({ wanted, sequence }) => {
      const count = Math.min(wanted.computed - sequence.computed, rows);
      rows -= count;
      return count;
    });
    const decoding = entries.every(({ scheduled }) => scheduled.count === 1);
    await this.#run(entries, decoding ? this.times : this.#reading);
  }

  /**
   * Pages for the copies' next rows and all proposals behind them: if need be those of sequences that propose nothing now. A copy that
   * gets none is forgotten.
   */
  #reserved(copies: readonly Copy[], count: (copy: Copy) => number): Entry[] {
    const asking = new Set(copies.map(({ wanted }) => wanted.sequence));
    return copies.flatMap((copy) => {
      const rows = count(copy);
      if (rows === 0) return [];
      const tokens = rows + Math.max(missing(copy) - 1, 0);
      if (!copy.sequence.reserve(this.#pool, tokens)) {
        for (const other of [...this.#copies.keys()]) if (!asking.has(other)) this.forget(other);
        if (!copy.sequence.reserve(this.#pool, tokens)) {
          this.forget(copy.wanted.sequence);
          return [];
        }
      }
      return [{ copy, scheduled: { sequence: copy.sequence, count: rows, drafts: [] } }];
    });
  }

  /** A step, or as many as may follow each other on the GPU, each computed from what the one before drew. */
  async #run(entries: readonly Entry[], times: StepTimes): Promise<void> {
    if (entries.length === 0) return;
    const { memory, runner } = this.#started;
    const steps = this.#stepsAhead(entries);
    const schedule = { kind: "generate" as const, entries: entries.map(({ scheduled }) => scheduled), copies: [] };
    const batch = buildBatch(schedule, memory);
    const copies = new Map(entries.map(({ copy }) => [copy.sequence, copy]));
    const sampled = batch.samples.map(({ sequence }) => copies.get(sequence));
    const keep = Array.from({ length: steps }, (_, step) => this.#keep(sampled, step));
    if (steps > 1) await runner.prepare(batch, steps);
    const begun = performance.now();
    const outputs =
      steps > 1 ? await runner.runAhead(batch, 0, steps, keep) : [(await runner.run(batch, keep[0])).outputs];
    times.add(batch.bucket.rows, (performance.now() - begun) / steps);
    for (const { copy, scheduled } of entries) if (this.#serves(copy)) copy.sequence.computed += scheduled.count;
    for (const [step, drawn] of outputs.entries()) {
      for (const [i, copy] of sampled.entries()) {
        if (copy !== undefined && (step === 0 || copy.goesOn))
          copy.goesOn = this.#take(copy, drawn[i]?.token ?? NONE, keep[step]?.rows[i]);
      }
    }
  }

  /** Steps that need nothing of the CPU in between: 1 where one reads more than its newest token, or has rules that look at the text. */
  #stepsAhead(entries: readonly Entry[]): number {
    const { off } = this.#started.gpu;
    const decodes = ({ copy: { sequence }, scheduled: { count } }: Entry) =>
      count === 1 && sequence.computed + 1 === sequence.tokens.length;
    const looksBack = ({ copy }: Entry) => copy.sequence.options.sampling.rules?.history === true;
    if (off.has(FREE_RUN) || !entries.every(decodes) || entries.some(looksBack)) return 1;
    return Math.max(...entries.map(({ copy }) => missing(copy)), 1);
  }

  /** Whether it is still the copy of a sequence: a request may end while a step is on its way. */
  #serves({ wanted, sequence }: Copy): boolean {
    return this.#copies.get(wanted.sequence) === sequence;
  }

  /** Where a step leaves the scores of proposals that are drawn by chance. */
  #keep(sampled: readonly (Copy | undefined)[], step: number): KeptScores {
    const rows = sampled.map((copy) => {
      const kept = copy !== undefined && drawsByChance(copy.sequence.options.sampling) && missing(copy) > step;
      return kept ? this.scores.take() : undefined;
    });
    return { scores: this.scores, rows };
  }

  /** Makes what was drawn a proposal; returns whether another one may come behind it. */
  #take(copy: Copy, token: number, row: number | undefined): boolean {
    const { wanted, sequence, proposals, drafted } = copy;
    if (!this.#serves(copy) || token >= this.#started.vocabulary || missing(copy) === 0) return false;
    if (row === undefined && drawsByChance(sequence.options.sampling)) return false;
    sequence.computed = sequence.tokens.length;
    sequence.tokens.push(token);
    proposals.push(token);
    if (row !== undefined) drafted.push(row);
    return missing(copy) > 0 && !wanted.stopIds.has(token);
  }

  /** Frees all of it but the device. */
  async free(): Promise<void> {
    for (const sequence of [...this.#copies.keys()]) this.forget(sequence);
    this.scores.destroy();
    await this.#started.free();
  }
}
