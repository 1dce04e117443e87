/** The speed line under an answer, in the words of the command's. */
import type { Part } from "../engine/types.ts";

/** "prompt 12 tok 143 tok/s · generated 64 tok 38.2 tok/s · first token 84 ms", of an answer's last part. */
export function speedLine({ usage, timings }: Part): string {
  if (usage === undefined || timings === undefined) return "";
  const { promptTokens, completionTokens, cachedTokens } = usage;
  const cached = cachedTokens > 0 ? ` (${cachedTokens} cached)` : "";
  const decoded = completionTokens > 1 ? ` ${rate(timings.tokensPerSecond)}` : "";
  return [
    `prompt ${promptTokens} tok${cached} ${rate(timings.promptTokensPerSecond)}`,
    `generated ${completionTokens} tok${decoded}`,
    `first token ${milliseconds(timings.firstTokenMs)}`,
  ].join(" · ");
}

function rate(perSecond: number): string {
  return `${perSecond >= 100 ? Math.round(perSecond) : perSecond.toFixed(1)} tok/s`;
}

function milliseconds(value: number): string {
  return value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}
