/** What a line typed into the chat page asks of the engine: a turn of a chat, or a text to go on with. */
import { isBegun } from "../engine/begunText.ts";
import type { GenerateRequest } from "../engine/types.ts";
import type { Message } from "../models/text/messages.ts";
import type { PageOptions } from "./pageOptions.ts";

/** A turn keeps what was said before; a continuation stands alone. */
export interface ChatRequest {
  readonly kind: "turn" | "continuation";
  readonly request: GenerateRequest;
}

/** The request for `text` after the messages `said`. `templated` tells whether the model has a chat template. */
export function chatRequest(
  text: string,
  said: readonly Message[],
  { model, raw, sampling }: PageOptions,
  templated: boolean,
): ChatRequest {
  if (raw || !templated || (model === "default" && said.length === 0 && isBegun(text))) {
    return { kind: "continuation", request: { ...sampling, prompt: text } };
  }
  return { kind: "turn", request: { ...sampling, messages: [...said, { role: "user", content: text }] } };
}
