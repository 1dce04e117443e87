/** What comes of a request, an event at a time: the tokens of one of its choices, or of the prompt that is echoed before them. */
import type { FinishReason, Part, ScoreResult, Timings, TokenLogprob, Usage } from "../types.ts";
import type { Host } from "./host.ts";

/** A token with its log-probability, null where nothing came before it, and the best ones at its place where asked for. */
export interface ScoredToken {
  readonly token: number;
  readonly logprob: number | null;
  readonly top: readonly TokenLogprob[];
}

/** News of one choice. */
export interface ChoiceEvent {
  readonly choice: number;
  readonly text: string;
  readonly tokens: readonly ScoredToken[];
  /** Whether the tokens are the prompt's. */
  readonly echoed: boolean;
  readonly end?: ChoiceEnd | undefined;
}

/** How a choice ended. */
export interface ChoiceEnd {
  readonly reason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
  readonly seed?: number;
}

/** The events of a request. Whoever leaves them early ends its work. */
export type Events = AsyncGenerator<ChoiceEvent, void, undefined>;

/** A part of a generated answer as an event. */
export function eventOf(part: Part, choice: number): ChoiceEvent {
  const { text, token, logprob, top = [], finishReason, usage, timings, seed } = part;
  const event = { choice, text, tokens: [{ token, logprob, top }], echoed: false };
  if (finishReason === null || usage === undefined || timings === undefined) return event;
  return { ...event, end: { reason: finishReason, usage, timings, ...(seed === undefined ? {} : { seed }) } };
}

/** The tokens of a scored prompt. */
export function scoredTokens({ tokens, logprobs, top }: ScoreResult): ScoredToken[] {
  return tokens.map((token, i) => ({ token, logprob: logprobs[i] ?? null, top: top[i] ?? [] }));
}

/** How a choice ends that generates nothing: its prompt was read, or not even that. */
export function promptEnd(promptTokens: number, promptMs: number): ChoiceEnd {
  return {
    reason: "length",
    usage: { promptTokens, completionTokens: 0, cachedTokens: 0 },
    timings: {
      promptMs,
      generatedMs: 0,
      firstTokenMs: promptMs,
      promptTokensPerSecond: promptMs > 0 ? (1000 * promptTokens) / promptMs : 0,
      tokensPerSecond: 0,
    },
  };
}

/** A choice of the events so far. */
export interface Gathered {
  text: string;
  tokens: ScoredToken[];
  end: ChoiceEnd | undefined;
}

/** All events of a request, by choice. */
export async function gather(events: Events, choices: number): Promise<Gathered[]> {
  const all = Array.from({ length: choices }, (): Gathered => ({ text: "", tokens: [], end: undefined }));
  for await (const { choice, text, tokens, end } of events) {
    const gathered = all[choice];
    if (gathered === undefined) continue;
    gathered.text += text;
    gathered.tokens.push(...tokens);
    gathered.end ??= end;
  }
  return all;
}

/** How a token is shown: its text, or its id where there is no tokenizer. */
export function tokenName({ model: { tokenizer } }: Host, id: number): string {
  return tokenizer?.tokenText(id) ?? `token_id:${id}`;
}
