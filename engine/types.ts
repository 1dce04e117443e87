/** What goes into the engine and what comes out: the same fields in the library, a worker and a server. */
import type { Message } from "../models/text/messages.ts";
import type { DraftShare, DraftStats } from "./draftCounts.ts";
import type { PrecisionPlan } from "./precision.ts";

/** Exactly one of `prompt`, `messages` and `tokens`. A field that is not here is refused by name. */
export interface GenerateRequest {
  readonly prompt?: string;
  readonly messages?: readonly Message[];
  readonly tokens?: readonly number[];
  /** Default: generation_config.json, else up to the end of the context. */
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
  readonly stopTokenIds?: readonly number[];
  readonly ignoreEos?: boolean;
  /** Answers to the prompt, which is read once for all: 1 to 128. Default: 1. */
  readonly n?: number;
  /** 0 is greedy. Default for each of these: generation_config.json, else 1 and nothing cut off. */
  readonly temperature?: number;
  /** 0: off. */
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  /** Keeps tokens whose surprise is nearest to the entropy, until they have this probability together. Above 0; 1: off. */
  readonly typicalP?: number;
  /** Divides the logits above 0 of tokens of the prompt and the answer, and multiplies the others. Above 0; 1: off. */
  readonly repetitionPenalty?: number;
  /** Taken off the logits of tokens of the answer; from -2 to 2. */
  readonly presencePenalty?: number;
  /** The same, as often as a token is there. */
  readonly frequencyPenalty?: number;
  /** Added to logits, by token id; from -100 to 100. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** The only tokens that may be drawn. */
  readonly allowedTokenIds?: readonly number[];
  /** Texts or runs of token ids that the answer must not complete. */
  readonly badWords?: readonly (string | readonly number[])[];
  /** Tokens before which nothing ends the answer but `maxTokens`. */
  readonly minTokens?: number;
  /** An integer below 2^53: the same request gives the same answer again. Default: a random one, said in the last part. */
  readonly seed?: number;
  /** How many of the best tokens to report at each place. */
  readonly logprobs?: number;
  /** The same at each place of the prompt, which the first part then has. */
  readonly promptLogprobs?: number;
  /** Whether special tokens in the text become control tokens. Default: true for `prompt`, false for `messages`. */
  readonly parseSpecial?: boolean;
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>>;
  /** Whether and how tokens are proposed, which changes the speed only. Unset: by the engine's draft model, if it has one. */
  readonly speculation?: false | SpeculationWish;
  /** An integer: requests of a lower one go first, and may make others give their place up for a while. Default: 0. */
  readonly priority?: number;
  /** Tokens of the prompt that are computed so far, cached ones included. */
  readonly onPrompt?: (computed: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** What the prompt of a chat depends on. */
export type ChatFields = Pick<GenerateRequest, "messages" | "parseSpecial" | "chatTemplateKwargs">;

/** What the ids of a prompt depend on. */
export type PromptFields = ChatFields & Pick<GenerateRequest, "prompt" | "tokens">;

/** Who proposes tokens, and how many. */
export interface SpeculationWish {
  /** Proposals in every step, 1 to 16. Unset: as many as were worth it lately, which may be none. */
  readonly draftTokens?: number;
  /** Proposals from the text so far, instead of the draft model's. */
  readonly promptLookup?: boolean;
}

/** A token with its log-probability. */
export interface TokenLogprob {
  readonly token: number;
  /** Natural log, of the model's own distribution. */
  readonly logprob: number;
}

/** Log-probabilities of a prompt, one entry a token; null for the first. */
export interface PromptLogprobs {
  readonly tokens: readonly number[];
  readonly logprobs: readonly (number | null)[];
  /** The best tokens at that place, best first. */
  readonly top: readonly (readonly TokenLogprob[] | null)[];
}

/** Tokens that an answer took. */
export interface Usage {
  /** Of several answers to one prompt, the first one counts it; 0 for the others. */
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens whose pages were there already. */
  readonly cachedTokens: number;
  /** There where tokens were proposed: how many, and how many of them the answer took. */
  readonly draft?: DraftShare;
}

/** Milliseconds. */
export interface Timings {
  readonly promptMs: number;
  readonly generatedMs: number;
  readonly firstTokenMs: number;
  readonly promptTokensPerSecond: number;
  readonly tokensPerSecond: number;
}

/** Why an answer ended: a stop id or string, or `maxTokens`. */
export type FinishReason = "stop" | "length";

/** One part a token. The texts of a choice's parts join to its answer: a part's own may be empty, or hold that of tokens before. */
export interface Part {
  /** Which of the answers, from 0 on. */
  readonly choice: number;
  readonly index: number;
  readonly text: string;
  readonly token: number;
  readonly logprob: number;
  readonly top?: readonly TokenLogprob[];
  /** On the first part of the first choice, where asked for. */
  readonly prompt?: PromptLogprobs;
  readonly finishReason: FinishReason | null;
  /** On the last part of each choice. */
  readonly usage?: Usage;
  readonly timings?: Timings;
  /** On the last part: gives the answer again. Unset where a draft's proposals were drawn by chance. */
  readonly seed?: number;
}

/** Exactly one of `text` and `tokens`. */
export interface ScoreRequest {
  readonly text?: string;
  readonly tokens?: readonly number[];
  /** Best tokens to report at each place, at most 64. */
  readonly top?: number;
  /** Tokens scored so far. */
  readonly onProgress?: (scored: number, total: number) => void;
  /** Called with the logits of each place in order, f32 (vocab_size); reading them back is slow. */
  readonly onLogits?: (position: number, logits: Float32Array) => void;
  /** Whether to report the experts that tokens went to. */
  readonly experts?: boolean;
  /** As in a GenerateRequest. */
  readonly priority?: number;
  readonly signal?: AbortSignal;
}

/** Log-probabilities of a text, one entry a token. */
export interface ScoreResult {
  readonly tokens: readonly number[];
  /** null without a tokenizer. */
  readonly texts: readonly string[] | null;
  /** log p(token i | tokens before it); null for the first. */
  readonly logprobs: readonly (number | null)[];
  /** The best tokens at that place, best first; null for the first. */
  readonly top: readonly (readonly TokenLogprob[] | null)[];
  /** exp of minus the mean of the log-probabilities; null for a text of one token, which has none. */
  readonly perplexity: number | null;
  /** Where asked for: of each mixture of experts in order of depth, at each place, the experts, highest weight first. */
  readonly experts?: readonly (readonly (readonly number[])[])[];
}

/** Requests since loading. Those that are neither finished nor failed are still being answered. */
export interface RequestStats {
  /** Those that were let in: what is refused by its fields alone is none. */
  readonly begun: number;
  /** Whose last part was read, or whose score was whole. */
  readonly finished: number;
  /** Ended by an error, their signal, their reader who left, or `close`. */
  readonly failed: number;
}

/** Tokens of the finished requests: prompt = cached + computed, and completion = delivered = logprobs. */
export interface TokenStats {
  readonly prompt: number;
  readonly cached: number;
  /** Counted by the rows of steps. */
  readonly computed: number;
  /** As their usage says. */
  readonly completion: number;
  /** Parts that their readers took. */
  readonly delivered: number;
  /** Of these, the ones with a log-probability. */
  readonly logprobs: number;
}

/** Counters since loading, and what is held now; bytes for memory. */
export interface EngineStats {
  readonly pages: { readonly total: number; readonly used: number; readonly cached: number };
  readonly running: number;
  readonly waiting: number;
  /** How often a sequence gave its pages up to others, to be computed again. */
  readonly preemptions: number;
  readonly requests: RequestStats;
  readonly tokens: TokenStats;
  /** Of the prompts of all requests, those included that did not finish. */
  readonly cachedTokens: number;
  /** Tokens that a draft model or the text proposed, and those that answers took. */
  readonly draft: DraftStats;
  readonly device: {
    readonly dispatches: number;
    readonly submits: number;
    /** Writes of batches, and times that something was waited for: once a step, or a window of steps. */
    readonly writes: number;
    readonly waits: number;
    readonly bindGroups: number;
    readonly bytesRead: number;
    /** Milliseconds that the CPU took to encode the dispatches. */
    readonly encodeMs: number;
    /** How often it was lost: every request ends with DeviceLostError from then on. */
    readonly lost: number;
  };
  /** What was asked for, and which matrices it reaches. */
  readonly precision: PrecisionPlan;
  /** The draft model's counted. */
  readonly memory: {
    readonly weights: number;
    readonly kv: number;
    readonly states: number;
    readonly arena: number;
  };
}
