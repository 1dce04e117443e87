/** Tokens and times of a whole request, from those of its choices. */
import type { Usage } from "../types.ts";
import type { ChoiceEnd } from "./events.ts";
import type { CompletionUsage, RequestTimings } from "./shapes.ts";

type Ends = readonly (ChoiceEnd | undefined)[];

/** What the choices of a request took together. */
export interface Totals {
  readonly usage: CompletionUsage;
  readonly timings: RequestTimings;
}

/** Each of `n` choices in a row shares its prompt, which counts once: as the first of them found it. */
export function requestUsage(n: number, ends: Ends): CompletionUsage {
  const prompts = ends.filter((_, i) => i % n === 0);
  return completionUsage({
    promptTokens: sum(prompts, (end) => end.usage.promptTokens),
    completionTokens: sum(ends, (end) => end.usage.completionTokens),
    cachedTokens: sum(prompts, (end) => end.usage.cachedTokens),
    draft: {
      proposed: sum(ends, (end) => end.usage.draft?.proposed ?? 0),
      accepted: sum(ends, (end) => end.usage.draft?.accepted ?? 0),
    },
  });
}

/** Tokens under OpenAI's names. */
export function completionUsage({ promptTokens, completionTokens, cachedTokens, draft }: Usage): CompletionUsage {
  const { proposed, accepted } = draft ?? { proposed: 0, accepted: 0 };
  const details = { accepted_prediction_tokens: accepted, rejected_prediction_tokens: proposed - accepted };
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    ...(proposed === 0 ? {} : { completion_tokens_details: details }),
  };
}

/** Choices run at the same time: their tokens are added, of their times the longest counts. */
export function requestTimings(n: number, ends: Ends): RequestTimings {
  const prompts = ends.filter((_, i) => i % n === 0);
  const cached = sum(prompts, (end) => end.usage.cachedTokens);
  const computed = sum(prompts, (end) => end.usage.promptTokens) - cached;
  const promptMs = longest(prompts, (end) => end.timings.promptMs);
  const predicted = sum(ends, (end) => end.usage.completionTokens);
  const predictedMs = longest(ends, (end) => end.timings.generatedMs);
  // A first token comes with its prompt: what follows it is what was decoded in that time.
  const decoded = sum(ends, (end) => Math.max(end.usage.completionTokens - 1, 0));
  return {
    cache_n: cached,
    prompt_n: computed,
    prompt_ms: promptMs,
    prompt_per_token_ms: ratio(promptMs, computed),
    prompt_per_second: ratio(1000 * computed, promptMs),
    predicted_n: predicted,
    predicted_ms: predictedMs,
    predicted_per_token_ms: ratio(predictedMs, decoded),
    predicted_per_second: ratio(1000 * decoded, predictedMs),
  };
}

function sum(ends: Ends, value: (end: ChoiceEnd) => number): number {
  return ends.reduce((total, end) => total + (end === undefined ? 0 : value(end)), 0);
}

function longest(ends: Ends, value: (end: ChoiceEnd) => number): number {
  return ends.reduce((most, end) => Math.max(most, end === undefined ? 0 : value(end)), 0);
}

/** 0 where there is nothing to divide by: JSON has no infinity. */
const ratio = (value: number, by: number) => (by > 0 ? value / by : 0);
