/**
 * How many tokens to propose for a sequence: as many as pay, which may be none.
 *
 *   tokens a step of k proposals gives:  1 + a + a² + … + a^k          a: share of the proposals that were accepted lately
 *   time it takes:                       t(n (k + 1)) + k · d          n: sequences in the step; t, d: measured
 *
 * k is what gives the most tokens a millisecond, or 0 where none gives a tenth more than that. Steps that nobody has measured are taken for as fast as those of fewer rows, so
 * that they are tried, the shortest first. Where k is 0 the sequence decodes as if there were no draft, but for a try now and then,
 * each after twice as many tokens as the one before, until proposals pay again.
 */
import { programRows, type StepTimes } from "./stepTimes.ts";

/** What proposals cost now. */
export interface DraftCosts {
  /** Steps of the target. */
  readonly steps: StepTimes;
  /** Sequences that decode in a step. */
  readonly sequences: number;
  /** Milliseconds a proposal, for all of them; undefined: not known yet. */
  readonly proposal: number | undefined;
  /** Milliseconds until the proposer can propose again. */
  readonly catchUp: number;
}

/** Before anything is known, two of three proposals are accepted: as if seen on so many. */
const PRIOR = { share: 0.65, weight: 2 };
/** What a proposal counts when one more was seen: about the last twenty decide. */
const KEPT = 0.95;
/** Plain tokens until a sequence that stopped proposing tries again; then twice as many, and so on. */
const FIRST_TRY = 32;
const MOST_WAIT = 1024;
const TRIED = 3;
/** What proposals have to promise over plain steps, since times are measured amid what else runs. */
const GAIN = 1.1;
/** Plain tokens of a run, at least: with many sequences a try is due in most steps. */
const LEAST_RUN = 16;
/** What catching up may cost of the time since proposals stopped. */
const CATCH_UP_SHARE = 0.04;

/** Decides for one sequence. */
export class DraftLength {
  readonly #fixed: number | undefined;
  readonly #most: number;
  #accepted = PRIOR.share * PRIOR.weight;
  #seen = PRIOR.weight;
  /** How many tokens the sequence had when proposals stopped; undefined: they have not. */
  #stopped: number | undefined;
  /** Plain tokens to wait for. */
  #wait = FIRST_TRY;
  /** How many tokens the sequence had at the try that is under way. */
  #tried: number | undefined;

  /** `fixed`: always as many, whatever it costs. `most`: at most, where it is not fixed. */
  constructor({ fixed, most }: { readonly fixed?: number | undefined; readonly most: number }) {
    this.#fixed = fixed;
    this.#most = most;
  }

  /** Share of the proposals that are accepted, as far as is known. */
  get acceptance(): number {
    return this.#accepted / this.#seen;
  }

  /** Proposals for the next step of a sequence of `tokens`, at most `most`. */
  next(tokens: number, most: number, costs: DraftCosts): number {
    if (this.#fixed !== undefined) return Math.min(this.#fixed, most);
    this.#tried = undefined;
    const step = costs.steps.of(costs.sequences);
    if (step === undefined || most < 1) return 0; // a plain step measures what others are held against
    const k = bestLength(this.acceptance, Math.min(most, this.#most), costs);
    if (k > 0) {
      [this.#stopped, this.#wait] = [undefined, FIRST_TRY];
      return k;
    }
    this.#stopped ??= tokens - 1;
    const plain = tokens - this.#stopped;
    if (plain < this.#wait) return 0;
    this.#wait = Math.min(2 * this.#wait, MOST_WAIT);
    if (costs.catchUp > CATCH_UP_SHARE * plain * step) return 0;
    const tried = bestLength(1, Math.min(most, TRIED), costs); // 0: not even a draft that is always right would pay
    if (tried > 0) this.#tried = tokens;
    return tried;
  }

  /** Steps that a sequence of `tokens` may decode in a row before anything is proposed: 1 while proposals are made. */
  plainSteps(tokens: number): number {
    if (this.#stopped === undefined || this.#tried !== undefined) return 1;
    return Math.max(this.#wait - (tokens - this.#stopped), LEAST_RUN);
  }

  /** What became of the proposals of a step; of those behind the first rejected one nothing is known. */
  learn(proposed: number, accepted: number): void {
    if (this.#tried !== undefined && proposed > 0) {
      this.#stopped = this.#tried - 1;
      if (accepted === proposed) this.#begin(accepted);
      return;
    }
    const seen = Math.min(accepted + 1, proposed);
    for (let i = 0; i < seen; i++) {
      this.#accepted = KEPT * this.#accepted + (i < accepted ? 1 : 0);
      this.#seen = KEPT * this.#seen + 1;
    }
  }

  /** A try of so many was accepted whole: the text is another one now. */
  #begin(accepted: number): void {
    this.#accepted = PRIOR.share * PRIOR.weight + accepted;
    this.#seen = PRIOR.weight + accepted;
    this.#stopped = undefined;
  }
}

/** The k of 0 to `most` that gives the most tokens a millisecond, 0 unless that is a tenth more; of equal ones the least. Of steps not measured, only the shortest. */
export function bestLength(acceptance: number, most: number, { steps, sequences, proposal = 0 }: DraftCosts): number {
  let [best, bestRate, tokens, gain] = [0, 0, 0, 1];
  let unknown: number | undefined;
  for (let k = 0; k <= most; k++) {
    const rows = sequences * (k + 1);
    if (steps.of(rows) === undefined) unknown ??= programRows(rows);
    if (unknown !== undefined && programRows(rows) > unknown) break;
    tokens += gain;
    gain *= acceptance;
    const rate = tokens / (steps.atLeast(rows) + k * proposal);
    if (rate > bestRate) [best, bestRate] = [k, k === 0 ? GAIN * rate : rate];
  }
  return best;
}
