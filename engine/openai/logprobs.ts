/** Log-probabilities in the shapes of the endpoints. */
import type { TokenLogprob } from "../types.ts";
import { type ScoredToken, tokenName } from "./events.ts";
import type { Host } from "./host.ts";
import type { ChatLogprobs, ChatToken, PromptLogprobs, TextLogprobs } from "./shapes.ts";

/** Of a chat's tokens, with the `top` best of each. */
export function chatLogprobs(host: Host, tokens: readonly ScoredToken[], top: number): ChatLogprobs {
  const content = tokens.map((scored) => ({
    ...chatToken(host, scored),
    top_logprobs: scored.top.slice(0, top).map((best) => chatToken(host, best)),
  }));
  return { content, refusal: null };
}

function chatToken(host: Host, { token, logprob }: Omit<ScoredToken, "top">): ChatToken {
  const bytes = host.model.tokenizer?.tokenBytes(token) ?? new Uint8Array();
  return { token: tokenName(host, token), logprob: logprob ?? 0, bytes: Array.from(bytes) };
}

/** Of a text's tokens, which begin `offset` characters into it. The token itself is always among the best. */
export function textLogprobs(host: Host, tokens: readonly ScoredToken[], top: number, offset: number): TextLogprobs {
  const names = tokens.map(({ token }) => tokenName(host, token));
  let at = offset;
  const offsets = names.map((name) => {
    const begin = at;
    at += name.length;
    return begin;
  });
  return {
    tokens: names,
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map((scored) => byName(host, scored, top)),
    text_offset: offsets,
  };
}

/** Two tokens may have one name, as halves of characters do: then the better one has it. */
function byName(host: Host, { token, logprob, top }: ScoredToken, count: number): Record<string, number> | null {
  if (logprob === null) return null;
  const named = withOwn({ token, logprob }, top.slice(0, count)).map((best) => [
    tokenName(host, best.token),
    best.logprob,
  ]);
  return Object.fromEntries(named.reverse());
}

/** Of a prompt's tokens, by id. The rank of a token that is not among the best is not known. */
export function promptLogprobs(host: Host, tokens: readonly ScoredToken[], count: number): PromptLogprobs {
  return tokens.map(({ token, logprob, top }) => {
    if (logprob === null) return null;
    const best = top.slice(0, count);
    const entries = withOwn({ token, logprob }, best).map((entry) => {
      const rank = best.findIndex((other) => other.token === entry.token) + 1;
      const named = {
        logprob: entry.logprob,
        rank: rank === 0 ? null : rank,
        decoded_token: tokenName(host, entry.token),
      };
      return [String(entry.token), named] as const;
    });
    return Object.fromEntries(entries);
  });
}

function withOwn(own: TokenLogprob, best: readonly TokenLogprob[]): readonly TokenLogprob[] {
  return best.some(({ token }) => token === own.token) ? best : [...best, own];
}
