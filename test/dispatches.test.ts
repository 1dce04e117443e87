/** What a token costs the device whose step the CPU lays out, counted from outside: dispatches, passes, submits, bind groups, bytes. */
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import { FREE_RUN } from "../kernels/variantNames.ts";
import { countingDevice, layerDispatches } from "./countingDevice.ts";
import { answer, sharedDevice } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const LAYERS = 3;
const VOCAB = 97;
const STEPS = 10;

const { gpu, pipelines } = await sharedDevice();
const counted = countingDevice({ ...gpu, off: new Set([FREE_RUN]) }); // what it costs without: freeRun.test.ts
const { counts } = counted;
const layer = layerDispatches(gpu);
let engine: Engine;
beforeAll(async () => {
  const model = tinyFolder(tinyModel({ layers: LAYERS, vocab: VOCAB }));
  engine = await Engine.load(model, { device: { gpu: counted.gpu, pipelines } });
});
afterEach(() => expectSums(engine));
afterAll(() => engine.close());

/** Counts of an answer of `tokens` tokens, where everything it needs has been recorded. */
async function cost(prompt: readonly number[], tokens: number) {
  counts.reset();
  const { tokens: said } = await answer(engine, { tokens: prompt, maxTokens: tokens, temperature: 0, ignoreEos: true });
  expect(said).toHaveLength(tokens);
  const {
    dispatches,
    passes,
    submits,
    writes,
    bindGroups,
    pipelines: compiled,
    buffers,
    mappedBytes,
    writtenBytes,
  } = counts;
  return { dispatches, passes, submits, writes, bindGroups, compiled, buffers, mappedBytes, writtenBytes };
}

/** What each of STEPS decoded tokens cost. */
async function decodeCost(promptLength: number) {
  const prompt = randomTokens(1, promptLength, VOCAB);
  await cost(prompt, STEPS + 1); // records
  await cost(prompt, STEPS + 1); // and once more: now the prompt's pages are shared, which is another bucket
  const [long, short] = [await cost(prompt, STEPS + 1), await cost(prompt, 1)];
  const each = (key: keyof typeof long) => (long[key] - short[key]) / STEPS;
  return {
    made: { bindGroups: long.bindGroups, pipelines: long.compiled, buffers: long.buffers },
    dispatches: each("dispatches"),
    passes: each("passes"),
    submits: each("submits"),
    writes: each("writes"),
    mappedBytes: each("mappedBytes"),
    writtenBytes: each("writtenBytes"),
  };
}

const NOTHING = { bindGroups: 0, pipelines: 0, buffers: 0 };

test("a decoded token is 5 L + 3 dispatches (6 L + 3 by broadcasts) in one pass and one submit, and makes nothing", async () => {
  const { writtenBytes, ...rest } = await decodeCost(20);
  expect(rest).toEqual({
    made: NOTHING,
    dispatches: layer * LAYERS + 3,
    passes: 1,
    submits: 1,
    writes: 1,
    mappedBytes: 8, // the id and its log-probability
  });
  expect(writtenBytes).toBeLessThan(16 * 1024);
});

test("past 256 keys it is one a layer more", async () => {
  const { dispatches, passes, submits, writes, mappedBytes, made } = await decodeCost(270);
  expect({ dispatches, passes, submits, writes, mappedBytes, made }).toEqual({
    made: NOTHING,
    dispatches: (layer + 1) * LAYERS + 3,
    passes: 1,
    submits: 1,
    writes: 1,
    mappedBytes: 8,
  });
});

test("four answers at once share their steps", async () => {
  const prompts = [1, 2, 3, 4].map((seed) => randomTokens(seed, 17, VOCAB));
  const all = async () => {
    counts.reset();
    await Promise.all(
      prompts.map((tokens) => answer(engine, { tokens, maxTokens: STEPS, temperature: 0, ignoreEos: true })),
    );
    return { submits: counts.submits, bindGroups: counts.bindGroups };
  };
  await all();
  await all();
  const { submits, bindGroups } = await all();
  expect(bindGroups).toBe(0);
  expect(submits).toBeLessThanOrEqual(STEPS + 3);
});

test("the engine's own counts are these", async () => {
  const before = engine.stats().device;
  const { dispatches, submits, mappedBytes, bindGroups } = await cost(randomTokens(1, 20, VOCAB), 5);
  const after = engine.stats().device;
  expect({
    dispatches: after.dispatches - before.dispatches,
    submits: after.submits - before.submits,
    bytesRead: after.bytesRead - before.bytesRead,
    bindGroups: after.bindGroups - before.bindGroups,
  }).toEqual({ dispatches, submits, bytesRead: mappedBytes, bindGroups });
});
