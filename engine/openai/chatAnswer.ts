/** A chat's answer in OpenAI's shape, whole or in chunks. */
import type { ChoiceEvent, Gathered, ScoredToken } from "./events.ts";
import type { Host } from "./host.ts";
import type { Identity } from "./identity.ts";
import { chatLogprobs } from "./logprobs.ts";
import type { ChatCompletion, ChatCompletionChunk, ChatLogprobs } from "./shapes.ts";

/** What all parts of an answer are told with. */
export interface Telling {
  readonly host: Host;
  readonly identity: Identity;
  /** Best tokens listed at each place; undefined where no log-probabilities are wanted. */
  readonly top: number | undefined;
}

/** The whole answer. */
export function wholeChat(
  telling: Telling,
  choices: readonly Gathered[],
  { usage, timings }: Pick<ChatCompletion, "usage" | "timings">,
): ChatCompletion {
  return {
    ...telling.identity,
    object: "chat.completion",
    choices: choices.map(({ text, tokens, end }, index) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: logprobsOf(telling, tokens),
      finish_reason: end?.reason ?? "length",
      ...(end?.seed === undefined ? {} : { seed: end.seed }),
    })),
    usage,
    timings,
  };
}

type ChunkChoice = ChatCompletionChunk["choices"][number];

/** A chunk with these choices. */
export function chatChunk({ identity }: Telling, choices: readonly ChunkChoice[]): ChatCompletionChunk {
  return { ...identity, object: "chat.completion.chunk", choices };
}

/** The chunks of an event: who speaks, before the first text; the text; how it ended. One without text or news is not sent. */
export function chatChunks(telling: Telling, event: ChoiceEvent, first: boolean): ChatCompletionChunk[] {
  const { choice: index, text, tokens, end } = event;
  const none = { index, delta: {}, logprobs: null, finish_reason: null };
  const choices: ChunkChoice[] = [];
  if (first) choices.push({ ...none, delta: { role: "assistant", content: "" } });
  const logprobs = logprobsOf(telling, tokens);
  if (text !== "" || logprobs !== null) choices.push({ ...none, delta: { content: text }, logprobs });
  if (end !== undefined)
    choices.push({ ...none, finish_reason: end.reason, ...(end.seed === undefined ? {} : { seed: end.seed }) });
  return choices.map((choice) => chatChunk(telling, [choice]));
}

function logprobsOf({ host, top }: Telling, tokens: readonly ScoredToken[]): ChatLogprobs | null {
  return top === undefined ? null : chatLogprobs(host, tokens, top);
}
