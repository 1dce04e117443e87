/** Models with windows: pages behind a window are free while layers without one keep theirs, and no bit changes. */
import { expect, test } from "vitest";
import type { GenerateRequest } from "../engine/types.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const WINDOW = 24;
const device = await sharedDevice();
const every = { model_type: "mistral", sliding_window: WINDOW };
const some = {
  model_type: "smollm3",
  use_sliding_window: true,
  sliding_window: WINDOW,
  layer_types: ["sliding_attention", "full_attention"],
  no_rope_layers: [1, 1],
};
/** Of both layers: K and V, heads, dimensions, tokens, bytes. */
const PAGE = 2 * 2 * 2 * 16 * 16 * 2;
const PROMPT = randomTokens(4, 100, VOCAB);
const LENGTHS = [100, 30, 61];
const ask = (length: number): GenerateRequest => ({
  tokens: PROMPT.slice(0, length),
  maxTokens: 14,
  seed: length,
  ignoreEos: true,
  speculation: false,
});
const said = ({ tokens, logprobs }: Awaited<ReturnType<typeof answer>>) => ({ tokens, logprobs });

test.each([
  // 114 tokens are 8 pages; a window of 24 keys lies in two blocks of 32, and its next row in a third.
  ["in every layer", every, 6],
  ["in some layers", some, 6 + 8],
])("a window %s: the bits of whole contexts, on few pages", async (_, config, most) => {
  const folder = tinyFolder(tinyModel({ vocab: VOCAB, config }));
  const calm: ReturnType<typeof said>[] = [];
  await withEngine(folder, { device, draft: folder, context: 128 }, async (engine) => {
    for (const length of LENGTHS) {
      const { tokens, logprobs } = await answer(engine, ask(length));
      calm.push({ tokens, logprobs });
      const prompt = PROMPT.slice(0, length);
      const scored = await engine.score({ tokens: [...prompt, ...tokens] });
      expect(scored.logprobs.slice(length)).toEqual(logprobs);
    }
    // Found again by its prefix, though pages of its beginning were given back; proposals are rolled back within it.
    const greedy = { ...ask(100), temperature: 0 };
    const first = await answer(engine, greedy);
    expect(first.last.usage?.cachedTokens).toBe(96);
    const drafted = await answer(engine, { ...greedy, speculation: { draftTokens: 5 } });
    expect(said(drafted)).toEqual(said(first));
    const looked = await answer(engine, { ...greedy, speculation: { draftTokens: 5, promptLookup: true } });
    expect(said(looked)).toEqual(said(first));
    let used = 0;
    for await (const _part of engine.generate(ask(100))) used = Math.max(used, engine.stats().pages.used);
    expect(used).toBeLessThanOrEqual(most);
    expect(engine.stats().pages.used).toBe(0);
  });
  await withEngine(folder, { device, context: 128, kvMemory: 9 * PAGE }, async (engine) => {
    const crowd = await Promise.all(LENGTHS.map((length) => answer(engine, ask(length))));
    expect(crowd.map(said)).toEqual(calm);
    const choices = [0, 1, 2].map((): number[] => []);
    for await (const part of engine.generate({ ...ask(100), n: 3 })) choices[part.choice]?.push(part.token);
    expect(choices[0]).toEqual(calm[0]?.tokens);
    expect(engine.stats().pages.used).toBe(0);
  });
});
