/**
 * Speculative decoding: tokens that somebody proposes are computed as further rows of their sequence, and taken as long as each
 * is what the model would have drawn itself.
 *
 * A row counts where the token that it was computed from is the one that the row before it drew: so what is drawn is what would
 * have been drawn one token at a time, bit for bit, whoever proposes and however well.
 */
import type { Batch } from "./batch.ts";
import { DraftCounts, type DraftStats } from "./draftCounts.ts";
import { DraftLength } from "./draftLength.ts";
import type { DraftModel } from "./draftModel.ts";
import { promptLookup } from "./promptLookup.ts";
import type { Proposal, Proposer, Wanted } from "./proposer.ts";
import type { ResolvedRequest } from "./request.ts";
import type { Room, Schedule } from "./scheduler.ts";
import type { Drafting, Sequence } from "./sequence.ts";
import { StepTimes } from "./stepTimes.ts";

const NONE_MADE: Proposal = { tokens: [] };
/** Proposals that are tried at once where nobody says how many. What a lookup finds is long or nothing. */
const MOST = { draft: 7, lookup: 15 };

/** How a sequence comes by its proposals. */
interface Source {
  readonly proposer: Proposer;
  readonly length: DraftLength;
  readonly stopIds: ReadonlySet<number>;
}

/** An engine's proposers, and what became of what they proposed. */
export class Speculation {
  readonly draft: DraftModel | undefined;
  readonly #counts = new DraftCounts();
  readonly #sources = new WeakMap<Drafting, Source>();
  /** Of steps in which every sequence decodes. */
  readonly #times = new StepTimes();

  constructor(draft: DraftModel | undefined) {
    this.draft = draft;
  }

  get stats(): DraftStats {
    return this.#counts.stats;
  }

  /** Who proposes for a request; undefined: nobody. */
  drafting({ speculation, stopIds, tokens, maxTokens }: ResolvedRequest): Drafting | undefined {
    if (speculation === undefined) return undefined;
    const { promptLookup: lookup, draftTokens: fixed } = speculation;
    const proposer: Proposer | undefined = lookup ? promptLookup : this.draft;
    if (proposer === undefined) return undefined;
    const length = new DraftLength({ fixed, most: lookup ? MOST.lookup : MOST.draft });
    const draft = lookup ? undefined : this.draft;
    const end = tokens.length + maxTokens;
    const wanted = (sequence: Sequence, decoding: number) => {
      // The step draws one token more than were proposed.
      const most = Math.min(end - sequence.tokens.length - 1, proposer.most(sequence));
      return length.next(sequence.tokens.length, Math.max(most, 0), {
        steps: this.#times,
        sequences: decoding,
        proposal: draft?.times.of(decoding),
        catchUp: draft?.readingTime(draft.behind(sequence)) ?? 0,
      });
    };
    const drafting = { wanted, plainSteps: ({ tokens }: Sequence) => length.plainSteps(tokens.length) };
    this.#sources.set(drafting, { proposer, length, stopIds });
    return drafting;
  }

  #sourceOf({ options: { drafting } }: Sequence): Source | undefined {
    return drafting === undefined ? undefined : this.#sources.get(drafting);
  }

  /** Frees what proposers hold for a sequence. */
  forget(sequence: Sequence): void {
    this.#sourceOf(sequence)?.proposer.forget(sequence);
  }

  /** The schedule with proposals, without sequences that ended while these were made. */
  async propose({ entries, ...schedule }: Schedule<Room>): Promise<Schedule> {
    const proposals = new Map<Sequence, Proposal>();
    for (const [proposer, wanted] of this.#wanted(entries)) {
      const made = await proposer.propose(wanted);
      for (const [i, { sequence }] of wanted.entries()) proposals.set(sequence, made[i] ?? NONE_MADE);
    }
    if (proposals.size === 0) return { ...schedule, entries };
    const left = entries.filter(({ sequence }) => !sequence.finished);
    return {
      ...schedule,
      entries: left.map(({ sequence, count }) => {
        const { tokens, drafted } = proposals.get(sequence) ?? NONE_MADE;
        sequence.proposed += tokens.length;
        sequence.chanced ||= drafted !== undefined;
        return { sequence, count, drafts: tokens, drafted };
      }),
    };
  }

  /** A step of so many rows, in which every sequence decoded, took so long. */
  took(rows: number, milliseconds: number): void {
    this.#times.add(rows, milliseconds);
  }

  /** Runs a step and remembers how long it took. */
  async timed<T>({ bucket }: Batch, run: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    const result = await run();
    if (bucket.kind === "generate" && bucket.everyRow) this.took(bucket.rows, performance.now() - begun);
    return result;
  }

  /** Counts what became of a step's proposals, once its outputs are handed out. */
  learn({ entries }: Schedule): void {
    for (const { sequence, count, drafts } of entries) {
      if (drafts.length === 0) continue;
      const { tokens, computed } = sequence;
      const first = computed + count;
      const rejected = drafts.findIndex((token, i) => token !== tokens[first + i]);
      const accepted = rejected < 0 ? drafts.length : rejected;
      this.#counts.add(drafts.length, accepted);
      this.#sourceOf(sequence)?.length.learn(drafts.length, accepted);
    }
  }

  /** What each proposer is to propose. A sequence whose prompt is read is shown to it, so that it can read along. */
  #wanted(entries: readonly Room[]): Map<Proposer, Wanted[]> {
    const all = new Map<Proposer, Wanted[]>();
    for (const { sequence, count, room } of entries) {
      const source = this.#sourceOf(sequence);
      const { tokens, computed } = sequence;
      const reads = count > 1 || computed + count < tokens.length;
      if (source === undefined || (room === 0 && !reads)) continue;
      const { proposer, stopIds } = source;
      const wanted = all.get(proposer) ?? [];
      all.set(proposer, wanted);
      // Behind the prompt's last token is what its own step draws.
      const upTo = room > 0 ? tokens.length : Math.min(computed + count, tokens.length - 1);
      wanted.push({ sequence, k: room, computed: upTo, stopIds });
    }
    return all;
  }
}
