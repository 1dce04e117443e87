/** `/tokenize` and `/detokenize`, as vLLM has them. */
import { InvalidRequestError } from "../engine/errors.ts";
import { type Body, booleanField, checkNames, RequestFieldError, stringField } from "../engine/openai/fields.ts";
import { inTheirNames, unchecked } from "../engine/openai/sampling.ts";
import { checkTextLength } from "../engine/promptTokens.ts";
import { modelOf, type Served } from "./served.ts";

const TOKENIZE_NAMES = [
  "model",
  "prompt",
  "messages",
  "add_special_tokens",
  "parse_special",
  "return_token_strs",
  "chat_template_kwargs",
];
const TOKENIZE_NEUTRAL = { add_generation_prompt: (value: unknown) => value === true };

/** The ids of a prompt or of messages: what a completion would compute. */
export function tokenize(served: Served, body: unknown): object {
  const fields = checkNames(body, TOKENIZE_NAMES, TOKENIZE_NEUTRAL);
  modelOf(served, fields);
  const { engine } = served;
  const tokenizer = tokenizerOf(served);
  const tokens = idsOf(served, fields);
  const strings = booleanField(fields, "return_token_strs");
  return {
    count: tokens.length,
    max_model_len: engine.plan.context,
    tokens,
    token_strs: strings ? tokens.map((id) => tokenizer.tokenText(id)) : null,
  };
}

function idsOf(served: Served, fields: Body): readonly number[] {
  const prompt = stringField(fields, "prompt");
  const { messages, chat_template_kwargs: chatTemplateKwargs } = fields;
  if ((prompt === undefined) === (messages === undefined || messages === null))
    throw new RequestFieldError("prompt", "prompt and messages: expected exactly one of them");
  if (prompt !== undefined) {
    const [addSpecialTokens, parseSpecial] = ["add_special_tokens", "parse_special"].map((name) =>
      booleanField(fields, name, true),
    );
    const tokenizer = tokenizerOf(served);
    checkTextLength(prompt, tokenizer, served.engine.plan, "prompt");
    return tokenizer.encode(prompt, {
      addSpecialTokens: addSpecialTokens === true,
      parseSpecial: parseSpecial === true,
    });
  }
  try {
    const parseSpecial = booleanField(fields, "parse_special");
    return served.engine.encode(unchecked({ messages, parseSpecial, chatTemplateKwargs }));
  } catch (error) {
    throw inTheirNames(error, { messages: "messages" });
  }
}

/** The text of ids, control tokens included. */
export function detokenize(served: Served, body: unknown): object {
  const fields = checkNames(body, ["model", "tokens"]);
  modelOf(served, fields);
  const { tokens } = fields;
  if (!Array.isArray(tokens) || !tokens.every((id) => Number.isInteger(id) && id >= 0))
    throw new RequestFieldError("tokens", "tokens: expected a list of token ids");
  return { prompt: tokenizerOf(served).decode(tokens, { skipSpecial: false }) };
}

function tokenizerOf({ engine }: Served) {
  const { tokenizer } = engine.model;
  if (tokenizer === undefined)
    throw new InvalidRequestError("tokenizer: the model has no tokenizer.json; only ids can be used with it");
  return tokenizer;
}
