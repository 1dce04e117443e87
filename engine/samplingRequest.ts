/** How a request's tokens are drawn: its fields checked, defaults resolved, rules laid out for the GPU. */
import { needsHistory, ruleBlock, type SampleRules } from "../kernels/rules.ts";
import type { GenerationDefaults } from "../models/generationConfig.ts";
import type { Tokenizer } from "../models/text/tokenizer.ts";
import { InvalidRequestError } from "./errors.ts";
import { idList, integer, number } from "./requestChecks.ts";
import type { LogitRules, SamplingParams } from "./samplingParams.ts";
import type { GenerateRequest } from "./types.ts";

const MAX_BIASES = 4096;
const MAX_BIAS = 100; // OpenAI's
const MAX_BAD_WORDS = 1024;
const MAX_WORD_TOKENS = 64;

/** What it is checked against. */
export interface SamplingContext {
  readonly tokenizer: Tokenizer | undefined;
  readonly defaults: GenerationDefaults;
  readonly vocabulary: number;
  readonly randomSeed: () => number;
}

/** What else the request says. */
export interface AnswerLimits {
  readonly promptLength: number;
  readonly maxTokens: number;
  readonly stopIds: ReadonlySet<number>;
}

/** How tokens are drawn, and how many there are before anything may end the answer. */
export interface CheckedSampling {
  readonly sampling: SamplingParams;
  readonly minTokens: number;
}

/** The request's own values, else generation_config.json's, else none that change anything. Throws InvalidRequestError. */
export function samplingOf(request: GenerateRequest, context: SamplingContext, limits: AnswerLimits): CheckedSampling {
  const { defaults } = context;
  const greedy = defaults.doSample === false && request.temperature === undefined;
  const minTokens = leastTokens(request, context, limits);
  const sampling = {
    temperature: greedy ? 0 : (number(request.temperature, "temperature", 0, 1e4) ?? defaults.temperature ?? 1),
    topK: integer(request.topK, "topK", 0, 2 ** 31) ?? defaults.topK ?? 0,
    topP: number(request.topP, "topP", 0, 1) ?? defaults.topP ?? 1,
    minP: number(request.minP, "minP", 0, 1) ?? defaults.minP ?? 0,
    typicalP: number(request.typicalP, "typicalP", 0, 1, true) ?? defaults.typicalP ?? 1,
    seed: integer(request.seed, "seed", 0, 2 ** 53 - 1) ?? context.randomSeed(),
    choice: 0,
    seeded: request.seed !== undefined,
    rules: logitRules(rulesOf(request, context, limits, minTokens), context.vocabulary),
  };
  return { sampling, minTokens };
}

function leastTokens(request: GenerateRequest, { defaults }: SamplingContext, { maxTokens }: AnswerLimits): number {
  const own = integer(request.minTokens, "minTokens", 0, 2 ** 31);
  if (own === undefined) return Math.min(defaults.minNewTokens ?? 0, maxTokens);
  if (own > maxTokens) throw new InvalidRequestError(`minTokens: is ${own}, expected at most maxTokens, ${maxTokens}`);
  return own;
}

function rulesOf(
  request: GenerateRequest,
  context: SamplingContext,
  { promptLength, stopIds }: AnswerLimits,
  minTokens: number,
): SampleRules {
  const { defaults, vocabulary } = context;
  const rules: SampleRules = {
    repetitionPenalty:
      number(request.repetitionPenalty, "repetitionPenalty", 0, 1000, true) ?? defaults.repetitionPenalty ?? 1,
    presencePenalty: number(request.presencePenalty, "presencePenalty", -2, 2) ?? 0,
    frequencyPenalty: number(request.frequencyPenalty, "frequencyPenalty", -2, 2) ?? 0,
    logitBias: biases(request.logitBias, vocabulary),
    allowed: allowedIds(request.allowedTokenIds, vocabulary),
    badWords:
      request.badWords === undefined ? defaultWords(defaults, vocabulary, stopIds) : words(request.badWords, context),
    stopIds: [...stopIds],
    minTokens,
    promptLength,
  };
  checkChoice(rules, vocabulary);
  return rules;
}

/** Throws where no token could ever be the first. */
function checkChoice({ allowed, badWords, stopIds, minTokens }: SampleRules, vocabulary: number): void {
  const banned = new Set(badWords.filter((word) => word.length === 1).map(([id]) => id));
  if (minTokens > 0) for (const id of stopIds) banned.add(id);
  const open = allowed === null ? vocabulary - banned.size : allowed.filter((id) => !banned.has(id)).length;
  if (open > 0) return;
  const fields = ["allowedTokenIds", "badWords", "minTokens"].filter(
    (_, i) => [allowed !== null, badWords.length > 0, minTokens > 0][i],
  );
  throw new InvalidRequestError(`${fields.join(", ")}: leave no token to begin with, expected at least one`);
}

/** null where nothing changes a logit. */
function logitRules(rules: SampleRules, vocabulary: number): LogitRules | null {
  const { logitBias, allowed, badWords, minTokens, stopIds } = rules;
  const history = needsHistory(rules);
  const lists = logitBias.size > 0 || allowed !== null || badWords.length > 0 || (minTokens > 0 && stopIds.length > 0);
  return history || lists ? { block: ruleBlock(rules, vocabulary), history } : null;
}

function biases(given: GenerateRequest["logitBias"], vocabulary: number): ReadonlyMap<number, number> {
  if (given === undefined) return new Map();
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new InvalidRequestError("logitBias: expected an object of biases by token id");
  const entries = Object.entries(given).map(([key, bias]): [number, number] => {
    const id = Number(key);
    if (!/^\d+$/.test(key) || id >= vocabulary)
      throw new InvalidRequestError(
        `logitBias: has ${JSON.stringify(key)}, expected token ids from 0 to ${vocabulary - 1}`,
      );
    return [id, number(bias, `logitBias[${key}]`, -MAX_BIAS, MAX_BIAS) ?? 0];
  });
  if (entries.length > MAX_BIASES)
    throw new InvalidRequestError(`logitBias: has ${entries.length} tokens, expected at most ${MAX_BIASES}`);
  return new Map(entries);
}

function allowedIds(given: readonly number[] | undefined, vocabulary: number): readonly number[] | null {
  if (given === undefined) return null;
  const ids = idList(given, "allowedTokenIds", vocabulary);
  if (ids.length === 0) throw new InvalidRequestError("allowedTokenIds: is empty, expected at least one token id");
  return [...new Set(ids)];
}

function words(given: GenerateRequest["badWords"] & object, context: SamplingContext): readonly (readonly number[])[] {
  if (!Array.isArray(given) || given.length > MAX_BAD_WORDS)
    throw new InvalidRequestError(`badWords: expected a list of at most ${MAX_BAD_WORDS} words`);
  return given.flatMap((word: unknown, i) => wordIds(word, `badWords[${i}]`, context));
}

/** A word as ids: itself, or where it is text what it is at the beginning of a text and behind a space, as vLLM reads it. */
function wordIds(word: unknown, field: string, { tokenizer, vocabulary }: SamplingContext): (readonly number[])[] {
  if (typeof word !== "string") {
    if (!Array.isArray(word)) throw new InvalidRequestError(`${field}: expected a string or a list of token ids`);
    return [checkedWord(idList(word, field, vocabulary), field)];
  }
  if (tokenizer === undefined)
    throw new InvalidRequestError(`${field}: the model has no tokenizer.json; pass token ids instead`);
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
  const plain = checkedWord(encode(word.trimStart()), field);
  const spaced = encode(` ${word.trimStart()}`);
  return spaced[0] !== plain[0] && spaced.length === plain.length ? [plain, spaced] : [plain];
}

function checkedWord(ids: readonly number[], field: string): readonly number[] {
  if (ids.length > 0 && ids.length <= MAX_WORD_TOKENS) return ids;
  throw new InvalidRequestError(`${field}: has ${ids.length} tokens, expected 1 to ${MAX_WORD_TOKENS}`);
}

/** What the checkpoint's authors ban. As in transformers, an id that ends the answer is no bad word. */
function defaultWords(
  { badWords }: GenerationDefaults,
  vocabulary: number,
  stopIds: ReadonlySet<number>,
): readonly (readonly number[])[] {
  return badWords.filter(
    (word) => word.every((id) => id < vocabulary) && !(word.length === 1 && stopIds.has(word[0] ?? -1)),
  );
}
