/** Answers of `ingle run --json`: an event a line. */
import type { Engine } from "../engine/engine.ts";
import { completionUsage } from "../engine/openai/usage.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import { type Answered, answer, endingOf } from "./answer.ts";
import { jsonLine, print } from "./output.ts";

/** Answers all at once, a line a token as it comes. Returns the exit code. */
export async function runJson(engine: Engine, requests: readonly GenerateRequest[]): Promise<number> {
  const answers = await Promise.all(
    requests.map(async (request, prompt) => {
      const answered = await answer(engine, request, (part) => {
        if (part.prompt !== undefined) print(jsonLine({ type: "prompt", prompt, ...part.prompt }));
        print(jsonLine(tokenEvent(prompt, part)));
      });
      print(jsonLine(doneEvent(prompt, answered)));
      return answered;
    }),
  );
  return endingOf(answers);
}

function tokenEvent(prompt: number, { index, token, text, logprob, top }: Part) {
  return { type: "token", prompt, index, id: token, text, logprob, ...(top === undefined ? {} : { top }) };
}

function doneEvent(prompt: number, { finishReason, usage, timings, seed }: Answered) {
  return {
    type: "done",
    prompt,
    finish_reason: finishReason,
    usage: completionUsage(usage),
    timings:
      timings === undefined
        ? {}
        : {
            prompt_ms: timings.promptMs,
            generated_ms: timings.generatedMs,
            first_token_ms: timings.firstTokenMs,
            prompt_tokens_per_second: timings.promptTokensPerSecond,
            tokens_per_second: timings.tokensPerSecond,
          },
    ...(seed === undefined ? {} : { seed }),
  };
}
