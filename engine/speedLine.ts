/** The speed of an answer in one line: the same words in a terminal and on a page. */
import type { Part } from "./types.ts";

/**
 * "prompt 12 tok 143 tok/s · generated 64 tok 38.2 tok/s · first token 84 ms · draft 71 % accepted", of an answer's last part; "stopped after 12 tok" of
 * one that was stopped, and nothing of a part that is not the last.
 */
export function speedLine({ usage, timings }: Pick<Part, "usage" | "timings">): string {
  if (usage === undefined) return "";
  const { promptTokens, completionTokens, cachedTokens, draft } = usage;
  if (timings === undefined) return `stopped after ${completionTokens} tok`;
  const cached = cachedTokens > 0 ? ` (${cachedTokens} cached)` : "";
  const decoded = completionTokens > 1 ? ` ${rate(timings.tokensPerSecond)}` : "";
  return [
    `prompt ${promptTokens} tok${cached} ${rate(timings.promptTokensPerSecond)}`,
    `generated ${completionTokens} tok${decoded}`,
    `first token ${milliseconds(timings.firstTokenMs)}`,
    ...(draft === undefined ? [] : [`draft ${Math.round((100 * draft.accepted) / draft.proposed)} % accepted`]),
  ].join(" · ");
}

/** "143 tok/s", "38.2 tok/s" */
export function rate(perSecond: number): string {
  return `${perSecond >= 100 ? Math.round(perSecond) : perSecond.toFixed(1)} tok/s`;
}

/** "84 ms", "12.3 s" */
export function milliseconds(value: number): string {
  return value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}
