/** The shapes of OpenAI's API, with what vLLM and llama.cpp add to them. */
import type { Message } from "../../models/text/messages.ts";
import type { FinishReason } from "../types.ts";

/** What both endpoints take; null is as if the field were not there. */
interface CommonRequest {
  readonly model?: string | null;
  readonly n?: number | null;
  readonly max_tokens?: number | null;
  readonly temperature?: number | null;
  readonly top_p?: number | null;
  readonly top_k?: number | null;
  readonly min_p?: number | null;
  readonly typical_p?: number | null;
  readonly repetition_penalty?: number | null;
  readonly presence_penalty?: number | null;
  readonly frequency_penalty?: number | null;
  readonly logit_bias?: Readonly<Record<string, number>> | null;
  readonly allowed_token_ids?: readonly number[] | null;
  readonly bad_words?: readonly (string | readonly number[])[] | null;
  readonly min_tokens?: number | null;
  readonly seed?: number | null;
  readonly stop?: string | readonly string[] | null;
  readonly stop_token_ids?: readonly number[] | null;
  readonly ignore_eos?: boolean | null;
  readonly priority?: number | null;
  readonly prompt_logprobs?: number | null;
  readonly stream?: boolean | null;
  readonly stream_options?: { readonly include_usage?: boolean | null } | null;
  readonly user?: string | null;
  readonly metadata?: Readonly<Record<string, string>> | null;
  readonly store?: boolean | null;
}

/** The body of `/v1/chat/completions`. */
export interface ChatCompletionRequest extends CommonRequest {
  readonly messages: readonly Message[];
  readonly max_completion_tokens?: number | null;
  readonly logprobs?: boolean | null;
  readonly top_logprobs?: number | null;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | null;
  readonly response_format?: { readonly type: "text" } | null;
}

/** Tokens of a whole request: a prompt counts once, however many answers it gets. */
export interface CompletionUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  /** There where a draft proposed tokens. */
  readonly completion_tokens_details?: {
    readonly accepted_prediction_tokens: number;
    readonly rejected_prediction_tokens: number;
  };
}

/** llama.cpp's: milliseconds, and tokens a second. `cache_n` tokens of the prompt were there, `prompt_n` were computed. */
export interface RequestTimings {
  readonly cache_n: number;
  readonly prompt_n: number;
  readonly prompt_ms: number;
  readonly prompt_per_token_ms: number;
  readonly prompt_per_second: number;
  readonly predicted_n: number;
  readonly predicted_ms: number;
  readonly predicted_per_token_ms: number;
  readonly predicted_per_second: number;
}

/** A token of an answer. `bytes` are its own, which may be a part of a character. */
export interface ChatToken {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

/** Log-probabilities of a chat's answer. */
export interface ChatLogprobs {
  readonly content: readonly (ChatToken & { readonly top_logprobs: readonly ChatToken[] })[];
  readonly refusal: null;
}

/** vLLM's: of each token of the prompt, itself and the best ones by id; null for the first, before which there is nothing. */
export type PromptLogprobs = readonly (Readonly<
  Record<string, { readonly logprob: number; readonly rank: number | null; readonly decoded_token: string }>
> | null)[];

/** One answer of a chat. `seed` is the one that it was drawn with. */
export interface ChatChoice {
  readonly index: number;
  readonly message: { readonly role: "assistant"; readonly content: string; readonly refusal: null };
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: FinishReason;
  readonly seed?: number;
}

/** The answer to a chat. */
export interface ChatCompletion {
  readonly id: string;
  readonly object: "chat.completion";
  readonly created: number;
  readonly model: string;
  readonly choices: readonly ChatChoice[];
  readonly usage: CompletionUsage;
  readonly timings: RequestTimings;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** A piece of a chat's answer. `usage` is null on all but the last, where it was asked for. */
export interface ChatCompletionChunk {
  readonly id: string;
  readonly object: "chat.completion.chunk";
  readonly created: number;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: { readonly role?: "assistant"; readonly content?: string };
    readonly logprobs: ChatLogprobs | null;
    readonly finish_reason: FinishReason | null;
    readonly seed?: number;
  }[];
  readonly usage?: CompletionUsage | null;
  readonly timings?: RequestTimings;
}

/** Log-probabilities of a text, one entry a token, in the shape of the older endpoint; null where nothing came before. */
export interface TextLogprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  readonly text_offset: readonly number[];
}

/** One text. Pieces of a stream have the same shape, with what came. */
export interface TextChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: TextLogprobs | null;
  readonly finish_reason: FinishReason | null;
  readonly seed?: number;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** The answer of `/v1/completions`, or a piece of it. */
export interface TextCompletion {
  readonly id: string;
  readonly object: "text_completion";
  readonly created: number;
  readonly model: string;
  readonly choices: readonly TextChoice[];
  readonly usage?: CompletionUsage | null;
  readonly timings?: RequestTimings;
}
