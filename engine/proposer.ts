/** What proposes tokens: a draft model, a look into the text so far, and whatever comes later, behind one call. */
import type { Sequence } from "./sequence.ts";

/** What one sequence wants in a step. */
export interface Wanted {
  readonly sequence: Sequence;
  /** Proposals at most; 0 while its prompt is read. */
  readonly k: number;
  /** Tokens of it that the target will have computed when the step is done, proposals not counted. */
  readonly computed: number;
  /** Ids that end the answer: behind them nothing need be proposed. */
  readonly stopIds: ReadonlySet<number>;
}

/** Tokens that may come behind a sequence's last one. */
export interface Proposal {
  readonly tokens: readonly number[];
  /** Rows of the scores that the tokens were drawn from, by chance; unset: no chance was in it. */
  readonly drafted?: readonly number[] | undefined;
}

/** Proposes what may come next. Nothing depends on it but speed: the target decides. */
export interface Proposer {
  /**
   * Up to k tokens for each sequence, to come after its last one; none is an answer too. Called once a step with all sequences
   * that this proposer serves, so that a model can take them as one batch.
   */
  propose(wanted: readonly Wanted[]): Promise<readonly Proposal[]>;
  /** Proposals that it could make for the sequence. */
  most(sequence: Sequence): number;
  /** Tokens that it would have to read before it could propose again. */
  behind(sequence: Sequence): number;
  /** Frees what it holds for a sequence. */
  forget(sequence: Sequence): void;
}
