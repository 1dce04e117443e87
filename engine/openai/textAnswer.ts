/** A continued text in OpenAI's older shape, whole or in chunks. */
import { type ChoiceEvent, type Gathered, type ScoredToken, tokenName } from "./events.ts";
import type { Host } from "./host.ts";
import type { Identity } from "./identity.ts";
import { promptLogprobs, textLogprobs } from "./logprobs.ts";
import type { TextChoice, TextCompletion, TextLogprobs } from "./shapes.ts";

/** Best tokens that are listed: of each token that is answered or echoed, and of each of the prompt; undefined where none is wanted. */
interface Listed {
  readonly top: number | undefined;
  readonly promptTop: number | undefined;
}

/** Tells the events of one request. */
export class TextTeller {
  /** Scores of the prompts, by choice. */
  readonly prompts = new Map<number, readonly ScoredToken[]>();
  readonly #host: Host;
  readonly #identity: Identity;
  readonly #listed: Listed;
  /** Where the next token of a streamed choice begins in its text. */
  readonly #offsets = new Map<number, number>();

  constructor(host: Host, identity: Identity, listed: Listed) {
    [this.#host, this.#identity, this.#listed] = [host, identity, listed];
  }

  /** A completion, or a chunk of one, with these choices. */
  completion(choices: readonly TextChoice[]): TextCompletion {
    return { ...this.#identity, object: "text_completion", choices };
  }

  /** The whole answer. */
  whole(choices: readonly Gathered[], totals: Pick<TextCompletion, "usage" | "timings">): TextCompletion {
    const told = choices.map((choice, index) => this.#choice(index, choice, 0));
    return { ...this.completion(told), ...totals };
  }

  /** The chunk of an event; none where there is no text and no news in it. */
  chunks(event: ChoiceEvent): TextCompletion[] {
    const { choice, text, tokens, end } = event;
    const offset = this.#offsets.get(choice) ?? 0;
    this.#offsets.set(
      choice,
      tokens.reduce((at, { token }) => at + tokenName(this.#host, token).length, offset),
    );
    if (text === "" && end === undefined && this.#listed.top === undefined) return [];
    return [this.completion([this.#choice(choice, event, offset)])];
  }

  #choice(
    index: number,
    { text, tokens, end }: Pick<ChoiceEvent, "text" | "tokens" | "end">,
    offset: number,
  ): TextChoice {
    const { promptTop } = this.#listed;
    const prompt = promptTop === undefined ? undefined : this.prompts.get(index);
    return {
      index,
      text,
      logprobs: this.#logprobs(tokens, offset),
      finish_reason: end?.reason ?? null,
      ...(end?.seed === undefined ? {} : { seed: end.seed }),
      ...(prompt === undefined ? {} : { prompt_logprobs: promptLogprobs(this.#host, prompt, promptTop ?? 0) }),
    };
  }

  #logprobs(tokens: readonly ScoredToken[], offset: number): TextLogprobs | null {
    const { top } = this.#listed;
    return top === undefined ? null : textLogprobs(this.#host, tokens, top, offset);
  }
}
