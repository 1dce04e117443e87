/** `/v1/chat/completions`: a body as requests to the engine, and what comes of them in OpenAI's shape. */
import { MAX_TOP } from "../../kernels/log_probs.ts";
import type { PromptFields } from "../types.ts";
import { chatChunk, chatChunks, type Telling, wholeChat } from "./chatAnswer.ts";
import { answersOf, scorePrompt, untilLeft } from "./choices.ts";
import type { Events, ScoredToken } from "./events.ts";
import { type Body, booleanField, checkNames, integerField, RequestFieldError } from "./fields.ts";
import type { Host } from "./host.ts";
import { identity } from "./identity.ts";
import { DELIVERY_NAMES, delivery, type Job } from "./job.ts";
import type { Leave } from "./leave.ts";
import { promptLogprobs } from "./logprobs.ts";
import { CHAT_NEUTRAL, inTheirNames, SAMPLING_NAMES, samplingFields, type TheirNames, unchecked } from "./sampling.ts";
import type { ChatCompletion, ChatCompletionChunk } from "./shapes.ts";

const NAMES = [
  "messages",
  ...DELIVERY_NAMES,
  "max_tokens",
  "max_completion_tokens",
  "logprobs",
  "top_logprobs",
  "chat_template_kwargs",
  ...SAMPLING_NAMES,
];

/** A chat that is ready to run. */
export type ChatJob = Job<ChatCompletion, ChatCompletionChunk>;

/** Throws InvalidRequestError and ContextLengthError in the words of the body. */
export function chatJob(host: Host, body: unknown, model: string): ChatJob {
  const fields = checkNames(body, NAMES, CHAT_NEUTRAL);
  const [limit, maxTokens] = answerLimit(fields);
  const names = {
    messages: "messages",
    prompt: "messages",
    maxTokens: limit,
    logprobs: "top_logprobs",
    chatTemplateKwargs: "chat_template_kwargs",
  };
  try {
    return makeJob(host, fields, names, maxTokens, model);
  } catch (error) {
    throw inTheirNames(error, names);
  }
}

function makeJob(host: Host, fields: Body, names: TheirNames, maxTokens: unknown, model: string): ChatJob {
  const how = delivery(fields, MAX_TOP);
  const top = topLogprobs(fields);
  const tokens = host.encode(chatPrompt(fields));
  const sampling = samplingFields(fields, { maxTokens, logprobs: top });
  const telling: Telling = { host, identity: identity("chatcmpl", model), top };
  let prompt: readonly ScoredToken[] | undefined;
  async function* run(leave: Leave): Events {
    try {
      const request = { ...sampling, tokens };
      if (how.promptTop !== undefined) prompt = await scorePrompt(host, request, how.promptTop, leave);
      yield* answersOf(host, { ...request, n: how.n }, 0, leave);
    } catch (error) {
      throw inTheirNames(error, names);
    }
  }
  return {
    ...how,
    choices: how.n,
    events: (signal) => untilLeft(signal, run),
    whole: (choices, totals) => {
      const scores = prompt === undefined ? {} : { prompt_logprobs: promptLogprobs(host, prompt, how.promptTop ?? 0) };
      return { ...wholeChat(telling, choices, totals), ...scores };
    },
    chunks: (event, first) => chatChunks(telling, event, first),
    usageChunk: () => chatChunk(telling, []),
  };
}

/** The field that limits the answer, and its value: the newer name wins, but not in silence. */
function answerLimit({ max_tokens: older, max_completion_tokens: newer }: Body): [string, unknown] {
  if (older !== undefined && older !== null && newer !== undefined && newer !== null && older !== newer) {
    const what = `max_completion_tokens and max_tokens: are ${JSON.stringify(newer)} and ${JSON.stringify(older)}`;
    throw new RequestFieldError("max_tokens", `${what}, expected one of them; leave max_tokens out`);
  }
  if (newer !== undefined && newer !== null) return ["max_completion_tokens", newer];
  return ["max_tokens", older ?? undefined];
}

/** How many of the best tokens are listed at each place; undefined where no log-probabilities are wanted. */
function topLogprobs(fields: Body): number | undefined {
  const wanted = booleanField(fields, "logprobs");
  const top = integerField(fields, "top_logprobs", 0, MAX_TOP);
  if (wanted) return top ?? 0;
  if (top !== undefined && top > 0)
    throw new RequestFieldError("top_logprobs", "top_logprobs: is given without logprobs; set logprobs to true");
  return undefined;
}

function chatPrompt(fields: Body): PromptFields {
  const { messages, chat_template_kwargs: kwargs } = fields;
  if (messages === undefined || messages === null)
    throw new RequestFieldError("messages", "messages: is missing, expected a list of messages");
  return unchecked({ messages, chatTemplateKwargs: kwargs });
}
