/** What must agree once an engine is idle: what came in is what went out, and nobody holds anything. */
import { expect } from "vitest";
import type { Engine } from "../engine/engine.ts";

/** Fails where a sum of its counts is off, a request is open, or something is held. For an engine that nobody asks anything. */
export function expectSums(engine: Engine): void {
  const { requests, tokens, draft, pages, running, waiting, cachedTokens } = engine.stats();
  const { prompt, cached, computed, completion, delivered, logprobs } = tokens;
  expect({ running, waiting, used: pages.used, drafts: engine.draft?.usedPages ?? 0 }, "held").toEqual({
    running: 0,
    waiting: 0,
    used: 0,
    drafts: 0,
  });
  expect(requests.finished + requests.failed, "requests = finished + failed").toBe(requests.begun);
  expect(cached + computed, "prompt = cached + computed").toBe(prompt);
  expect(cachedTokens).toBeGreaterThanOrEqual(cached);
  expect({ delivered, logprobs }, "delivered = usage = log-probabilities").toEqual({
    delivered: completion,
    logprobs: completion,
  });
  expect(draft.accepted + draft.rejected, "proposed = accepted + rejected").toBe(draft.proposed);
  const places = draft.byPosition.map(({ proposed, accepted }) => [proposed, accepted]);
  expect(places.reduce((sum, [proposed = 0]) => sum + proposed, 0)).toBe(draft.proposed);
  expect(places.reduce((sum, [, accepted = 0]) => sum + accepted, 0)).toBe(draft.accepted);
}
