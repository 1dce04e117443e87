/**
 * The sampling fields of OpenAI's API, and those beyond it that vLLM's users know, as fields of a `GenerateRequest`.
 *
 * One that the engine learns becomes a line of SAME, and leaves NEUTRAL: its check, its words and its limits are the engine's.
 */
import { ContextLengthError, InvalidRequestError } from "../errors.ts";
import type { GenerateRequest } from "../types.ts";
import { type Body, RequestFieldError } from "./fields.ts";

/** Fields that mean the same under two names, value for value. The engine checks them; `inTheirNames` puts its words right. */
const SAME = {
  temperature: "temperature",
  top_p: "topP",
  top_k: "topK",
  min_p: "minP",
  typical_p: "typicalP",
  repetition_penalty: "repetitionPenalty",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
  logit_bias: "logitBias",
  allowed_token_ids: "allowedTokenIds",
  bad_words: "badWords",
  min_tokens: "minTokens",
  seed: "seed",
  stop: "stop",
  stop_token_ids: "stopTokenIds",
  ignore_eos: "ignoreEos",
  priority: "priority",
} as const satisfies Readonly<Record<string, keyof GenerateRequest>>;

/** Names of fields that this file reads. */
export const SAMPLING_NAMES: readonly string[] = Object.keys(SAME);

const isValue =
  (...values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);
const isEmpty = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.keys(value).length === 0;

/** Fields of a chat that are not supported, with the values of theirs that ask for nothing: clients send them unasked. */
export const CHAT_NEUTRAL: Readonly<Record<string, (value: unknown) => boolean>> = {
  tools: isEmpty,
  tool_choice: isValue("none", "auto"),
  parallel_tool_calls: isValue(true, false), // without tools it says nothing
  response_format: (value) => typeof value === "object" && value !== null && "type" in value && value.type === "text",
};

/** The sampling fields of a body, and `more`. Their values are unchecked: the engine does that. */
export function samplingFields(body: Body, more: Readonly<Record<string, unknown>>): GenerateRequest {
  const fields = Object.entries(SAME).map(([theirs, ours]) => {
    const value = theirs === "stop" && typeof body.stop === "string" ? [body.stop] : body[theirs];
    return [ours, value] as const;
  });
  return unchecked({ ...Object.fromEntries(fields), ...more });
}

/** The fields that are there, as a request to the engine, which checks what they hold as it does for every caller. */
export function unchecked(fields: Readonly<Record<string, unknown>>): GenerateRequest {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

/** What the fields of a request are called in the body that they came from. */
export type TheirNames = Readonly<Record<string, string>>;

const SAMPLING_IN_THEIR_NAMES: TheirNames = Object.fromEntries(
  Object.entries(SAME).map(([theirs, ours]) => [ours, theirs]),
);

/** An error of the engine about a request, with the fields named as in the body; any other as it is. */
export function inTheirNames(error: unknown, names: TheirNames): unknown {
  if (error instanceof RequestFieldError) return error;
  const isContext = error instanceof ContextLengthError;
  if (!isContext && !(error instanceof InvalidRequestError)) return error;
  const all: TheirNames = { ...SAMPLING_IN_THEIR_NAMES, ...names };
  const { message } = error;
  // "where: what is, what was expected": only the first part names fields.
  const end = message.indexOf(":");
  let param: string | undefined;
  const where = message.slice(0, end).replace(/[A-Za-z]+/g, (word) => {
    const theirs = Object.hasOwn(all, word) ? all[word] : undefined;
    param ??= theirs;
    return theirs ?? word;
  });
  const renamed = where + message.slice(end);
  if (isContext) return new ContextLengthError(renamed, { cause: error });
  return param === undefined ? error : new RequestFieldError(param, renamed, { cause: error });
}
