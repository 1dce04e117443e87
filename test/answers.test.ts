/** Several answers to one prompt: its pages are held together, and each answer is what it would be alone. */
import { describe, expect, test } from "vitest";
import type { Engine } from "../engine/engine.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import { PLAIN_SAMPLE } from "../kernels/caseData.ts";
import { PURPOSE, philox, unitInterval } from "../kernels/fragments/philox.ts";
import { drawn, keptWeights } from "../kernels/sample.cases.ts";
import { logitsOf } from "./expected.ts";
import { sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const SEED = 11;
const TEMPERATURE = 1.1;
const device = await sharedDevice();
const folder = tinyFolder(tinyModel({ vocab: VOCAB }));

const ask = (length: number, more: GenerateRequest = {}): GenerateRequest => ({
  tokens: randomTokens(length, length, VOCAB),
  temperature: TEMPERATURE,
  seed: SEED,
  maxTokens: 6,
  n: 3,
  ...more,
});

/** The parts of a request, choice by choice; `onPart` sees them come. */
async function partsOf(engine: Engine, request: GenerateRequest, onPart = (_: Part) => {}): Promise<Part[][]> {
  const parts = Array.from({ length: request.n ?? 1 }, (): Part[] => []);
  for await (const part of engine.generate(request)) {
    parts[part.choice]?.push(part);
    onPart(part);
  }
  return parts;
}

const said = (parts: readonly (readonly Part[])[]) =>
  parts.map((choice) => choice.map(({ token, logprob, index, finishReason }) => [token, logprob, index, finishReason]));

describe("several answers", () => {
  test("are drawn by the definition, each with a number of its own", async () => {
    await withEngine(folder, { device }, async (engine) => {
      const request = ask(40);
      const parts = await partsOf(engine, request);
      const prompt = request.tokens ?? [];
      for (const [choice, own] of parts.entries()) {
        const all = [...prompt, ...own.map(({ token }) => token)];
        const logits = (await logitsOf(engine, all.slice(0, -1))).slice(prompt.length - 1);
        const wanted = logits.map((row, i) => {
          const random = philox([prompt.length + i, choice, PURPOSE.sample, 0], [SEED, 0]);
          return drawn(keptWeights(row, { ...PLAIN_SAMPLE, temperature: TEMPERATURE }), unitInterval(random[0]));
        });
        expect(all.slice(prompt.length)).toEqual(wanted);
      }
      expect(new Set(parts.map((own) => own.map(({ token }) => token).join())).size).toBe(3);
    });
  });

  test("have the bits of answers one after the other, hold the prompt once, and count it once", async () => {
    const lengths = [1, 16, 17, 33, 40];
    const alone = await withEngine(folder, { device, rowsPerStep: 1 }, async (engine) => {
      const all: Part[][][] = [];
      for (const length of lengths) {
        all.push(await partsOf(engine, ask(length)));
        expect(engine.stats().running + engine.stats().waiting).toBe(0);
      }
      return all;
    });
    await withEngine(folder, { device }, async (engine) => {
      for (const [i, length] of lengths.entries()) {
        let most = 0;
        const before = engine.stats().cachedTokens;
        const parts = await partsOf(engine, ask(length), () => {
          most = Math.max(most, engine.stats().pages.used);
        });
        expect(said(parts)).toEqual(said(alone[i] ?? []));
        // Full pages below the last token are held by all; what is behind them, by each.
        const full = Math.floor((length - 1) / 16);
        expect(most).toBe(full + 3 * (Math.ceil((length + 5) / 16) - full));
        const usages = parts.map((own) => own.at(-1)?.usage);
        expect(usages.map((usage) => usage?.promptTokens)).toEqual([length, 0, 0]);
        expect(usages.map((usage) => usage?.completionTokens)).toEqual([6, 6, 6]);
        expect(engine.stats().cachedTokens - before).toBe(usages[0]?.cachedTokens);
        expect(engine.stats().pages.used).toBe(0);
      }
    });
  });

  test("are the same in company, with few pages, and where one ends before the others", async () => {
    const some = [ask(20, { maxTokens: 30 }), ask(37, { n: 2, maxTokens: 25 }), ask(9, { n: 4, maxTokens: 12 })];
    const calm: Part[][][] = [];
    await withEngine(folder, { device }, async (engine) => {
      for (const request of some) calm.push(await partsOf(engine, request));
    });
    const page = 2 * 2 * 2 * 16 * 16 * 2; // layers, K and V, heads, dimensions, tokens, bytes
    await withEngine(folder, { device, context: 64, kvMemory: 7 * page }, async (engine) => {
      const crowd = await Promise.all(some.map((request) => partsOf(engine, request)));
      expect(crowd.map(said)).toEqual(calm.map(said));
      expect(engine.stats().preemptions).toBeGreaterThan(0);
      const ends = said(calm[0] ?? []).map((own) => own[2]?.[0]);
      const stopped = await partsOf(engine, { ...some[0], stopTokenIds: [Number(ends[1])] });
      expect(stopped.map((own) => own.length)).not.toEqual([30, 30, 30]);
      expect(said(stopped).map((own) => own.slice(0, -1))).toEqual(
        said(calm[0] ?? []).map((own, i) => own.slice(0, (stopped[i]?.length ?? 0) - 1)),
      );
      expect(engine.stats().pages.used).toBe(0);
    });
  });

  test("end together where their reader leaves, at whatever part, and free their pages", async () => {
    await withEngine(folder, { device }, async (engine) => {
      const whole = said(await partsOf(engine, ask(40)));
      for (const last of [1, 2, 3, 4, 8]) {
        let seen = 0;
        for await (const _ of engine.generate(ask(40, { maxTokens: 50 }))) if (++seen === last) break;
        const { pages, running, waiting } = engine.stats();
        expect([pages.used, running, waiting]).toEqual([0, 0, 0]);
      }
      const stop = new AbortController();
      const left = partsOf(engine, ask(100, { signal: stop.signal, onPrompt: () => stop.abort() }));
      await expect(left).rejects.toThrow("generate: aborted by its signal");
      expect(engine.stats().pages.used).toBe(0);
      expect(said(await partsOf(engine, ask(40)))).toEqual(whole);
    });
  });

  test("are the same behind proposals of a draft that follows each", async () => {
    await withEngine(folder, { device, draft: folder, context: 128 }, async (engine) => {
      const greedy = ask(40, { temperature: 0, maxTokens: 20 });
      const plain = said(await partsOf(engine, { ...greedy, speculation: false }));
      expect(said(await partsOf(engine, { ...greedy, speculation: { draftTokens: 3 } }))).toEqual(plain);
    });
  });
});
