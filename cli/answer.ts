/** One answer on its way from the engine to stdout, and the speed line of several. */
import type { Engine } from "../engine/engine.ts";
import { AbortError } from "../engine/errors.ts";
import { milliseconds, rate } from "../engine/speedLine.ts";
import type { GenerateRequest, Part, Timings, Usage } from "../engine/types.ts";
import { EXIT } from "./errors.ts";

/** How an answer ended. */
export interface Answered {
  readonly text: string;
  readonly finishReason: "stop" | "length" | "abort";
  readonly usage: Usage;
  /** There where it came to its end. */
  readonly timings?: Timings;
  readonly seed?: number;
}

/** Runs a request to its end or until its signal; `onPart` sees every part. Throws what the engine does, but for AbortError. */
export async function answer(
  engine: Engine,
  request: GenerateRequest,
  onPart: (part: Part) => void,
): Promise<Answered> {
  let text = "";
  let count = 0;
  try {
    for await (const part of engine.generate(request)) {
      text += part.text;
      count++;
      onPart(part);
      const { finishReason, usage, timings, seed } = part;
      if (finishReason === null || usage === undefined) continue;
      return {
        text,
        finishReason,
        usage,
        ...(timings === undefined ? {} : { timings }),
        ...(seed === undefined ? {} : { seed }),
      };
    }
  } catch (error) {
    if (!(error instanceof AbortError) || request.signal?.aborted !== true) throw error;
  }
  // The last part, which would have told of it, never came.
  const usage = { promptTokens: engine.encode(request).length, completionTokens: count, cachedTokens: 0 };
  return { text, finishReason: "abort", usage };
}

/** The exit code of answers: whether any was broken off. */
export const endingOf = (answers: readonly Answered[]): number =>
  answers.some(({ finishReason }) => finishReason === "abort") ? EXIT.interrupted : EXIT.done;

/** The speed of several answers that ran at once in `wall` milliseconds. */
export function batchSpeedLine(answers: readonly Answered[], wall: number): string {
  const sum = (of: (answer: Answered) => number) => answers.reduce((total, one) => total + of(one), 0);
  const generated = sum(({ usage }) => usage.completionTokens);
  const first = answers.flatMap(({ timings }) => (timings === undefined ? [] : [timings.firstTokenMs]));
  return [
    `${answers.length} prompts of ${sum(({ usage }) => usage.promptTokens)} tok`,
    `generated ${generated} tok ${rate((1000 * generated) / wall)} together`,
    ...(first.length === 0
      ? []
      : [`first token ${milliseconds(Math.min(...first))} to ${milliseconds(Math.max(...first))}`]),
  ].join(" · ");
}
