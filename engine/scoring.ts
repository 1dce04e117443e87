/** Scoring: the log-probability of every token of a list, by steps that want the logits of each row. */
import { AbortError, NonFiniteError } from "./errors.ts";
import type { ReadModel } from "./loadModel.ts";
import { GREEDY } from "./samplingParams.ts";
import type { Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import type { ScoreRequest, TokenLogprob } from "./types.ts";

/** What is scored, and by whom. */
export interface ScoreWish {
  /** Which request it is part of, for messages. */
  readonly what: "score" | "generate";
  readonly tokens: readonly number[];
  readonly top: number;
  readonly priority: number;
  readonly onProgress?: ScoreRequest["onProgress"] | undefined;
  readonly onLogits?: ScoreRequest["onLogits"] | undefined;
  readonly experts?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly model: Pick<ReadModel, "ropeVariant">;
  readonly scheduler: Pick<Scheduler, "remove">;
  readonly submit: (sequence: Sequence) => void;
}

/** An entry a token, null for the first. */
export interface Scored {
  readonly logprobs: readonly (number | null)[];
  readonly best: readonly (readonly TokenLogprob[] | null)[];
  /** By layer and place. */
  readonly experts: readonly (readonly (readonly number[])[])[];
  /** Rows that were computed for it, those that were computed again not counted. */
  readonly computed: number;
}

/** Throws AbortError, NonFiniteError, and what fails the engine. */
export async function scoreTokens(wish: ScoreWish): Promise<Scored> {
  const { what, tokens, signal, scheduler } = wish;
  const aborted = () => new AbortError(`${what}: aborted by its signal`, { cause: signal?.reason });
  if (signal?.aborted === true) throw aborted();
  const logprobs: (number | null)[] = [null];
  const best: (readonly TokenLogprob[] | null)[] = [null];
  const experts: (readonly number[])[][] = [];
  let told = 0; // places handed out: a sequence that gave its pages up comes by the first ones again
  let stop = () => {};
  const done = new Promise<Sequence>((resolve, reject) => {
    const sequence: Sequence = new Sequence({
      tokens,
      kind: "score",
      priority: wish.priority,
      sampling: GREEDY,
      top: wish.top,
      logits: wish.onLogits !== undefined,
      experts: wish.experts === true,
      ropeVariant: wish.model.ropeVariant,
      onOutput: (output, position, logits) => {
        if (position < told) return false;
        told++;
        wish.onProgress?.(position + 1, tokens.length);
        if (logits !== undefined) wish.onLogits?.(position, logits);
        output.experts?.forEach((chosen, layer) => {
          const places = experts[layer] ?? [];
          places.push(chosen);
          experts[layer] = places;
        });
        if (!output.finite) throw new NonFiniteError(`${what}: the logits after token ${position} are not finite`);
        const last = position === tokens.length - 1;
        if (last) resolve(sequence);
        else [logprobs[position + 1], best[position + 1]] = [output.logprob, output.top];
        return last;
      },
      onError: reject,
    });
    stop = () => {
      scheduler.remove(sequence);
      reject(aborted());
    };
    wish.submit(sequence);
  });
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const { computedTokens: computed } = await done;
    return { logprobs, best, experts, computed };
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
