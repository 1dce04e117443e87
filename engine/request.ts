/** Requests: every field checked once, by name, and every default resolved. */
import { MAX_TOP } from "../kernels/log_probs.ts";
import type { GenerationDefaults } from "../models/generationConfig.ts";
import { ContextLengthError, InvalidRequestError } from "./errors.ts";
import { encodePrompt, orRaise, type PromptContext, promptTokens } from "./promptTokens.ts";
import { checkFields, checkSignal, checkType, idList, integer } from "./requestChecks.ts";
import { type CheckedSampling, samplingOf } from "./samplingRequest.ts";
import type { GenerateRequest, ScoreRequest, SpeculationWish } from "./types.ts";

/** What a request is checked against. */
export interface RequestContext extends PromptContext {
  readonly defaults: GenerationDefaults;
  readonly stopIds: readonly number[];
  /** Whether there is a draft model, and whether the model can take back tokens that it read. */
  readonly draft: boolean;
  readonly takesBack: boolean;
  /** A random integer below 2^53. */
  readonly randomSeed: () => number;
}

/** A checked request. */
export interface ResolvedRequest extends CheckedSampling {
  readonly tokens: readonly number[];
  readonly maxTokens: number;
  /** Answers to the prompt. */
  readonly n: number;
  readonly stop: readonly string[];
  readonly stopIds: ReadonlySet<number>;
  readonly top: number;
  /** Best tokens to report at each place of the prompt; null: its log-probabilities are not asked for. */
  readonly promptTop: number | null;
  readonly priority: number;
  /** undefined: nobody proposes tokens. */
  readonly speculation: ResolvedSpeculation | undefined;
}

/** Who proposes tokens. */
export interface ResolvedSpeculation {
  /** The text itself; else the draft model. */
  readonly promptLookup: boolean;
  /** Proposals in every step; undefined: as many as pay. */
  readonly draftTokens: number | undefined;
}

const GENERATE_FIELDS: Readonly<Record<keyof GenerateRequest, true>> = {
  prompt: true,
  messages: true,
  tokens: true,
  maxTokens: true,
  stop: true,
  stopTokenIds: true,
  ignoreEos: true,
  n: true,
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  typicalP: true,
  seed: true,
  repetitionPenalty: true,
  presencePenalty: true,
  frequencyPenalty: true,
  logitBias: true,
  allowedTokenIds: true,
  badWords: true,
  minTokens: true,
  logprobs: true,
  promptLogprobs: true,
  parseSpecial: true,
  chatTemplateKwargs: true,
  speculation: true,
  priority: true,
  onPrompt: true,
  signal: true,
};
const SCORE_FIELDS: Readonly<Record<keyof ScoreRequest, true>> = {
  text: true,
  tokens: true,
  top: true,
  onProgress: true,
  onLogits: true,
  experts: true,
  priority: true,
  signal: true,
};

const SPECULATION_FIELDS: Readonly<Record<keyof SpeculationWish, true>> = { draftTokens: true, promptLookup: true };

const MAX_STOPS = 64;
/** Answers to one prompt: OpenAI's limit. */
const MAX_ANSWERS = 128;
/** Of what is further away next to nothing is accepted. */
export const MAX_DRAFT_TOKENS = 16;

/** Throws InvalidRequestError that names the field, ContextLengthError with both lengths. */
export function resolveGenerate(request: GenerateRequest, context: RequestContext): ResolvedRequest {
  checkFields(request, GENERATE_FIELDS, "generate");
  const tokens = promptTokens(request, context);
  const room = context.context - tokens.length;
  const maxTokens =
    integer(request.maxTokens, "maxTokens", 1, 2 ** 31) ??
    Math.max(Math.min(room, context.defaults.maxNewTokens ?? room), 1);
  if (tokens.length > context.context - 1) {
    throw new ContextLengthError(
      `prompt: ${tokens.length} tokens, at most ${context.context - 1} in a context of ${context.context}; shorten it${orRaise(context)}`,
    );
  }
  if (request.maxTokens !== undefined && maxTokens > room) {
    throw new ContextLengthError(
      `prompt and maxTokens: ${tokens.length} + ${maxTokens} tokens, at most ${context.context} in the context; ask for ${room} or fewer`,
    );
  }
  checkType(request.ignoreEos, "ignoreEos", "boolean");
  checkSignal(request.signal);
  const stopIds = new Set([
    ...(request.ignoreEos === true ? [] : context.stopIds),
    ...idList(request.stopTokenIds, "stopTokenIds", context.vocabulary),
  ]);
  const most = Math.min(maxTokens, room);
  return {
    tokens,
    maxTokens: most,
    n: integer(request.n, "n", 1, MAX_ANSWERS) ?? 1,
    ...samplingOf(request, context, { promptLength: tokens.length, maxTokens: most, stopIds }),
    stop: stopStrings(request.stop),
    stopIds,
    top: integer(request.logprobs, "logprobs", 0, MAX_TOP) ?? 0,
    priority: priorityOf(request),
    speculation: speculationOf(request.speculation, context),
    promptTop: integer(request.promptLogprobs, "promptLogprobs", 0, MAX_TOP) ?? null,
  };
}

/** The tokens of a request that is scored. */
export function resolveScore(
  request: ScoreRequest,
  context: RequestContext,
): { tokens: readonly number[]; top: number; priority: number } {
  checkFields(request, SCORE_FIELDS, "score");
  const { text, tokens } = request;
  checkType(request.onLogits, "onLogits", "function");
  checkType(request.experts, "experts", "boolean");
  checkSignal(request.signal);
  if ((text === undefined) === (tokens === undefined))
    throw new InvalidRequestError("score: expected exactly one of text and tokens");
  const ids =
    tokens === undefined
      ? encodePrompt(text ?? "", context, "text", true)
      : idList(tokens, "tokens", context.vocabulary);
  if (ids.length === 0) throw new InvalidRequestError("score: no tokens, expected at least one");
  if (ids.length > context.context) {
    throw new ContextLengthError(
      `score: ${ids.length} tokens, at most ${context.context} in the context; split the text${orRaise(context)}`,
    );
  }
  return { tokens: ids, top: integer(request.top, "top", 0, MAX_TOP) ?? 0, priority: priorityOf(request) };
}

function priorityOf({ priority }: Pick<GenerateRequest, "priority">): number {
  return integer(priority, "priority", -(2 ** 31), 2 ** 31 - 1) ?? 0;
}

function speculationOf(
  wish: GenerateRequest["speculation"],
  { draft, takesBack }: RequestContext,
): ResolvedSpeculation | undefined {
  if (wish === false) return undefined;
  if (wish === undefined) return draft ? { promptLookup: false, draftTokens: undefined } : undefined;
  checkType(wish, "speculation", "object");
  checkFields(wish, SPECULATION_FIELDS, "speculation");
  checkType(wish.promptLookup, "speculation.promptLookup", "boolean");
  const { promptLookup = false } = wish;
  const draftTokens = integer(wish.draftTokens, "speculation.draftTokens", 1, MAX_DRAFT_TOKENS);
  if (!promptLookup && !draft)
    throw new InvalidRequestError(
      "speculation: there is no draft model; load the engine with one, or ask for promptLookup",
    );
  if (!takesBack)
    throw new InvalidRequestError(
      "speculation: the model keeps a running state of what it read, and cannot take tokens back; leave it out",
    );
  return { promptLookup, draftTokens };
}

function stopStrings(stop: readonly string[] | undefined): readonly string[] {
  if (stop === undefined) return [];
  if (!Array.isArray(stop) || stop.length > MAX_STOPS)
    throw new InvalidRequestError(`stop: expected a list of at most ${MAX_STOPS} strings`);
  for (const [i, text] of stop.entries()) {
    if (typeof text !== "string" || text === "")
      throw new InvalidRequestError(`stop[${i}]: expected a string that is not empty`);
  }
  return stop;
}
