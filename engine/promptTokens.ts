/** Prompts of requests, whatever they are given as, made tokens. */
import { type ChatTemplate, checkKwargs, type EncodedChat, encodeChat } from "../models/text/chatTemplate.ts";
import { checkMessages } from "../models/text/messages.ts";
import type { Tokenizer } from "../models/text/tokenizer.ts";
import { ContextLengthError, InvalidRequestError } from "./errors.ts";
import { checkType, idList } from "./requestChecks.ts";
import type { ChatFields, PromptFields } from "./types.ts";

/** Tokens that a sequence may have, what that may be raised to, and what the model was made for. */
export interface ContextLimits {
  readonly context: number;
  readonly longest: number;
  readonly trained: number;
}

/** What a prompt is checked against. */
export interface PromptContext extends ContextLimits {
  readonly tokenizer: Tokenizer | undefined;
  readonly template: ChatTemplate | undefined;
  readonly vocabulary: number;
}

/** The ids of a prompt; a bos where it is empty. Throws InvalidRequestError. */
export function promptTokens(request: PromptFields, context: PromptContext): readonly number[] {
  const { prompt, messages, tokens, parseSpecial } = request;
  checkType(parseSpecial, "parseSpecial", "boolean");
  checkType(request.chatTemplateKwargs, "chatTemplateKwargs", "object");
  const given = [prompt, messages, tokens].filter((value) => value !== undefined).length;
  if (given !== 1)
    throw new InvalidRequestError(`generate: ${given} of prompt, messages and tokens are given, expected exactly one`);
  let ids: readonly number[];
  if (tokens !== undefined) ids = idList(tokens, "tokens", context.vocabulary);
  else if (prompt !== undefined) ids = encodePrompt(prompt, context, "prompt", parseSpecial ?? true);
  else ids = chatPrompt(request, context).ids;
  if (ids.length > 0) return ids;
  const bos = context.tokenizer?.bosTokenId;
  if (bos === undefined)
    throw new InvalidRequestError(
      "prompt: is empty, expected at least one token; this model has no bos token to begin with",
    );
  return [bos];
}

/** The ids of a text. Throws InvalidRequestError, ContextLengthError. */
export function encodePrompt(text: string, context: PromptContext, field: string, parseSpecial: boolean): number[] {
  const { tokenizer } = context;
  if (typeof text !== "string") throw new InvalidRequestError(`${field}: is ${typeof text}, expected a string`);
  if (tokenizer === undefined)
    throw new InvalidRequestError(`${field}: the model has no tokenizer.json; pass tokens instead`);
  checkTextLength(text, tokenizer, context, field);
  return tokenizer.encode(text, { addSpecialTokens: true, parseSpecial });
}

/** Refuses a text before it is encoded that is too long for the context however well its tokens go: a megabyte takes seconds. */
export function checkTextLength(
  text: string,
  { longestToken }: Pick<Tokenizer, "longestToken">,
  limits: ContextLimits,
  field: string,
): void {
  const most = limits.context * longestToken;
  if (text.length <= most) return;
  throw new ContextLengthError(
    `${field}: ${text.length} characters, at most ${most} in a context of ${limits.context} tokens; shorten it${orRaise(limits)}`,
  );
}

/** Messages behind the chat template: the text and its ids. Throws InvalidRequestError, ContextLengthError, ChatTemplateError. */
export function chatPrompt(
  { messages, parseSpecial = false, chatTemplateKwargs = {} }: ChatFields,
  context: PromptContext,
): EncodedChat {
  const { tokenizer, template } = context;
  if (tokenizer === undefined)
    throw new InvalidRequestError("messages: the model has no tokenizer.json; pass tokens instead");
  if (template === undefined)
    throw new InvalidRequestError(
      "messages: the model has no chat template; pass prompt instead (--raw on the command line)",
    );
  const checked = asRequest(() => checkMessages(messages));
  asRequest(() => checkKwargs(chatTemplateKwargs));
  const options = {
    addGenerationPrompt: true,
    parseSpecial,
    onText: (text: string) => checkTextLength(text, tokenizer, context, "messages"),
    kwargs: chatTemplateKwargs,
  };
  return encodeChat(tokenizer, template, checked, options);
}

/** What a check of models/ returns; what it throws as an error of the request. */
function asRequest<T>(check: () => T): T {
  try {
    return check();
  } catch (cause) {
    throw new InvalidRequestError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** What else helps where the context is too short. */
export function orRaise({ context, longest, trained }: ContextLimits): string {
  if (longest <= context) return "; no longer context fits";
  return ` or raise --context: up to ${longest} fit${longest > trained ? `, ${trained} are what the model was made for` : ""}`;
}
