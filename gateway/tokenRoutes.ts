/** `/tokenize` and `/detokenize`, as vLLM has them; `/apply-template`, as llama.cpp has it. */
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
const TEMPLATE_NAMES = ["model", "messages", "chat_template_kwargs"];
/** Of messages: the prompt always ends where the assistant begins to speak. */
const NEUTRAL = { add_generation_prompt: (value: unknown) => value === true };

/** The ids of a prompt or of messages: what a completion would compute. */
export function tokenize(served: Served, body: unknown): object {
  const fields = checkNames(body, TOKENIZE_NAMES, NEUTRAL);
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
  const parseSpecial = booleanField(fields, "parse_special");
  return renamed(() => served.engine.encode(unchecked({ messages, parseSpecial, chatTemplateKwargs })));
}

/** What the engine returns, or its words about a request with the fields named as in the body. */
function renamed<T>(ask: () => T): T {
  try {
    return ask();
  } catch (error) {
    throw inTheirNames(error, { messages: "messages", tokens: "tokens", chatTemplateKwargs: "chat_template_kwargs" });
  }
}

/** The text of ids, control tokens included. */
export function detokenize(served: Served, body: unknown): object {
  const fields = checkNames(body, ["model", "tokens"]);
  modelOf(served, fields);
  const { tokens } = fields;
  const tokenizer = tokenizerOf(served);
  if (!Array.isArray(tokens)) throw new RequestFieldError("tokens", "tokens: expected a list of token ids");
  if (tokens.length === 0) return { prompt: "" };
  const ids = renamed(() => served.engine.encode({ tokens })); // which refuses those that are not in the vocabulary
  return { prompt: tokenizer.decode(ids, { skipSpecial: false }) };
}

/** The text of messages behind the chat template. */
export function applyTemplate(served: Served, body: unknown): object {
  const fields = checkNames(body, TEMPLATE_NAMES, NEUTRAL);
  modelOf(served, fields);
  const { messages, chat_template_kwargs: chatTemplateKwargs } = fields;
  return { prompt: renamed(() => served.engine.applyTemplate(unchecked({ messages, chatTemplateKwargs }))) };
}

function tokenizerOf({ engine }: Served) {
  const { tokenizer } = engine.model;
  if (tokenizer === undefined)
    throw new InvalidRequestError("tokenizer: the model has no tokenizer.json; only ids can be used with it");
  return tokenizer;
}
