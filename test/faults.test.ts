/**
 * The k-th call fails, for k = 1, 2, … until a load and its answers come through: each time there is an error that says what
 * failed, or answers that are right; nothing leaks; and what is asked next is right.
 */
import { describe, expect, test } from "vitest";
import { DeviceLostError, IngleError } from "../device/errors.ts";
import type { Folder, KeptTexts } from "../device/files.ts";
import { openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Engine } from "../engine/engine.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import { countingDevice } from "./countingDevice.ts";
import { type FaultKind, Faults, faultyDevice, type KeptPipelines } from "./faultyDevice.ts";
import { answer, sharedDevice } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
/** Kinds of which each call fails in turn: each makes another buffer, and one that found no memory may be kept. */
const EVERY: readonly FaultKind[] = ["createBuffer"];
/** Of the others so many calls fail: the first one, the last one, some between. */
const SOME = 3;
const VOCAB = 61;

const { gpu } = await sharedDevice();
const { gpu: counted, counts } = countingDevice(gpu);
const compiled: KeptPipelines = new Map();
const folder = tinyFolder(
  tinyModel({ layers: 1, hidden: 32, heads: 2, kvHeads: 1, intermediate: 32, vocab: VOCAB, context: 256 }),
);
const kept = keptInMemory();

/** Where the results of self-tests are kept, so that they need not run each time. */
function keptInMemory(): KeptTexts {
  const texts = new Map<string, string>();
  return {
    read: async (name) => texts.get(name),
    write: async (name, text) => void texts.set(name, text),
  };
}

interface Setup {
  readonly faults?: Faults;
  readonly model?: Folder;
  readonly tried?: KeptTexts;
}

/** Loads a model with itself as its draft. */
function load({ faults = new Faults({ kind: undefined, nth: 0 }), model = folder, tried = kept }: Setup = {}) {
  const faulty = faultyDevice(counted, faults, compiled);
  const device = { gpu: faulty, pipelines: new PipelineCache(faulty) };
  return Engine.load(model, { device, draft: model, context: 128, rowsPerStep: 16, window: 3, kept: tried });
}

/** Two answers to one prompt. */
async function both(engine: Engine, request: GenerateRequest) {
  const parts: Part[] = [];
  for await (const part of engine.generate(request)) parts.push(part);
  const all = [0, 1].flatMap((choice) => parts.filter((part) => part.choice === choice));
  return { tokens: all.map(({ token }) => token), logprobs: all.map(({ logprob }) => logprob) };
}

/** A prompt in chunks that then speculates, two answers to one, one with rules, one that is scored: all at once. */
async function ask(engine: Engine): Promise<PromiseSettledResult<unknown>[]> {
  const greedy = { tokens: randomTokens(1, 40, VOCAB), maxTokens: 6, temperature: 0, ignoreEos: true };
  const all = [
    answer(engine, { ...greedy, speculation: { draftTokens: 3 } }),
    both(engine, { ...greedy, tokens: randomTokens(3, 20, VOCAB), temperature: 1, seed: 1, n: 2 }),
    answer(engine, { ...greedy, tokens: [1, 2], logitBias: { 7: 3 }, frequencyPenalty: 1, logprobs: 2 }),
    engine.score({ tokens: randomTokens(2, 20, VOCAB), top: 2 }),
  ];
  const results = await Promise.allSettled(all);
  expectSums(engine);
  return results.map((result) => {
    if (result.status === "rejected") return result;
    const { tokens, logprobs } = result.value;
    return { status: "fulfilled", value: { tokens, logprobs } };
  });
}

await (await load()).close(); // kernels are tried once, and not counted
const clean = new Faults({ kind: undefined, nth: 0 });
const engine = await load({ faults: clean });
const right = await ask(engine);
const calls = { ...clean.calls };
const answered = await ask(engine);
await engine.close();

test("without a fault, answers come twice alike and nothing stays", () => {
  expect(right.every(({ status }) => status === "fulfilled")).toBe(true);
  expect(answered).toEqual(right);
  expect(counts.live.size).toBe(0);
});

/** An error of ours, in words that name more than what the driver said. */
function expectClear(error: unknown): void {
  expect(error).toBeInstanceOf(IngleError);
  expect(String(error)).toMatch(/: .*: ./);
}

/** Answers are right or end with a clear error; then all are right. */
async function expectLivesOn(engine: Engine, faults?: Faults): Promise<void> {
  try {
    (await ask(engine)).forEach((result, i) => {
      if (result.status === "rejected") expectClear(result.reason);
      else expect(result).toEqual(right[i]);
    });
    faults?.end();
    expect(await ask(engine)).toEqual(right);
  } finally {
    await engine.close();
  }
  expect(counts.live.size).toBe(0);
}

/** Loads and asks; where loading fails, once more. */
async function expectRecovers(setup: Setup & { readonly faults: Faults }): Promise<void> {
  const loaded = await load(setup).catch((error: unknown) => error);
  if (loaded instanceof Engine) {
    await expectLivesOn(loaded, setup.faults);
    return;
  }
  expectClear(loaded);
  expect([counts.live.size, gpu.memory.buffers]).toEqual([0, 0]);
  setup.faults.end();
  await expectLivesOn(await load(setup));
}

/** 1 … `most`, or some of them with both ends. */
function numbers(most: number, every = FULL): number[] {
  if (every || most <= SOME) return Array.from({ length: most }, (_, i) => i + 1);
  return Array.from({ length: SOME }, (_, i) => 1 + Math.round((i * (most - 1)) / (SOME - 1)));
}

const KINDS: readonly FaultKind[] = ["createBuffer", "mapAsync", "createComputePipelineAsync", "popErrorScope"];
test.each(KINDS)("%s", { timeout: 600_000 }, async (kind) => {
  const count = calls[kind];
  expect(count).toBeGreaterThan(8);
  const unstruck: number[] = [];
  for (const nth of numbers(count, FULL || EVERY.includes(kind))) {
    const faults = new Faults({ kind, nth });
    await expectRecovers({ faults });
    if (!faults.struck) unstruck.push(nth);
  }
  expect(unstruck).toEqual([]);
});

test.runIf(FULL).each(KINDS)("%s while kernels are tried", { timeout: 3_600_000 }, async (kind) => {
  for (let nth = 1; ; nth++) {
    const faults = new Faults({ kind, nth });
    await expectRecovers({ faults, tried: keptInMemory() });
    if (!faults.struck) return;
  }
});

describe("reads", () => {
  /** The folder of which one read goes wrong, the headers' and the config's among them; `reads` counts them. */
  function failing(nth: number, how: "fails" | "short" | "long") {
    const reads = { count: 0 };
    const open: Folder["open"] = async (name) => {
      const source = await folder.open(name);
      if (source === undefined) return undefined;
      const read: typeof source.read = async (begin, end, signal) => {
        const bytes = await source.read(begin, end, signal);
        if (++reads.count !== nth) return bytes;
        if (how === "fails") throw new Error("the disk is gone");
        return how === "short" ? bytes.subarray(0, -1) : new Uint8Array([...bytes, 0]);
      };
      return { ...source, read };
    };
    return { reads, model: { ...folder, open } };
  }

  test.each(["fails", "short", "long"] as const)("%s", { timeout: 600_000 }, async (how) => {
    const { reads, model } = failing(0, how);
    await (await load({ model })).close();
    for (const nth of numbers(reads.count)) {
      const broken = failing(nth, how);
      const error = await load({ model: broken.model }).catch((reason: unknown) => reason);
      if (how === "fails") expect(String(error)).toContain("the disk is gone");
      else expect(error).toMatchObject({ code: "SOURCE_SHORT" });
      expect([counts.live.size, gpu.memory.buffers]).toEqual([0, 0]);
    }
    await expectLivesOn(await load());
  });
});

test("a device that is lost ends every request, in whatever state, and close", { timeout: 120_000 }, async () => {
  const own = await openGpu();
  const device = { gpu: own, pipelines: new PipelineCache(own) };
  const losing = await Engine.load(folder, { device, draft: folder, context: 128, rowsPerStep: 8, kept });
  const request = { tokens: [1, 2, 3], temperature: 0, ignoreEos: true } as const;
  const long = randomTokens(3, 100, VOCAB);
  const first = losing.generate({ ...request, speculation: { draftTokens: 3 } });
  for (let i = 0; i < 3; i++) await first.next();
  const pending = [
    answer(losing, request), // decodes or waits
    answer(losing, { ...request, tokens: long }), // its prompt is read in chunks
    losing.score({ tokens: long }),
    (async () => {
      for (;;) if ((await first.next()).done === true) throw new Error("ended");
    })(),
  ];
  const settled = Promise.allSettled(pending);
  own.device.destroy();
  for (const result of await settled) expect(result).toMatchObject({ reason: expect.any(DeviceLostError) });
  await expect(answer(losing, request)).rejects.toThrow(DeviceLostError);
  await expect(losing.score({ tokens: long })).rejects.toThrow(DeviceLostError);
  await own.lost;
  expect(losing.stats().device.lost).toBe(1);
  expectSums(losing);
  await losing.close();
  own.close();
});
