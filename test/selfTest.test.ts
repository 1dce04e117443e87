/** The start-up self-test against adapters that compute wrongly: what is off, what is refused, what is kept. */
import { describe, expect, test } from "vitest";
import type { KeptTexts } from "../device/files.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Engine } from "../engine/engine.ts";
import { currentOutcomes } from "../engine/selfTest.ts";
import { isShared } from "../kernels/fragments/matmul.ts";
import { xFrom } from "../kernels/xFrom.ts";
import { countingDevice } from "./countingDevice.ts";
import { hookedDevice } from "./hookedDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const VOCAB = 97;
const { gpu, pipelines } = await sharedDevice();
const folder = tinyFolder(tinyModel({ vocab: VOCAB, headDim: 32, heads: 2, kvHeads: 1 }));
const request = { tokens: randomTokens(1, 300, VOCAB), maxTokens: 6, temperature: 0, ignoreEos: true } as const;
const right = await withEngine(folder, { device: { gpu, pipelines } }, (engine) => answer(engine, request));

/** Texts in memory. */
function memory(texts = new Map<string, string>()): KeptTexts & { readonly texts: Map<string, string> } {
  return {
    texts,
    read: async (name) => texts.get(name),
    write: async (name, text) => {
      texts.set(name, text);
    },
  };
}

/** A device whose driver compiles kernels of a name to something else. */
function miscompiling(kernel: RegExp, from: string, to: string) {
  let changed = 0;
  const broken = hookedDevice(gpu, {
    createShaderModule: (descriptor) => {
      if (!kernel.test(descriptor.label ?? "")) return gpu.device.createShaderModule(descriptor);
      const code = descriptor.code.replace(from, to);
      if (code !== descriptor.code) changed++;
      return gpu.device.createShaderModule({ ...descriptor, code });
    },
  });
  return { device: { gpu: broken, pipelines: new PipelineCache(broken) }, changes: () => changed };
}

/** What is off on a device whose answers must be right all the same. */
async function offAfter({ device, changes }: ReturnType<typeof miscompiling>, kept = memory()): Promise<string[]> {
  return await withEngine(folder, { device, kept }, async (engine) => {
    expect(changes()).toBeGreaterThan(0);
    const { tokens, logprobs } = await answer(engine, request);
    expect({ tokens, logprobs }).toEqual({ tokens: right.tokens, logprobs: right.logprobs });
    return [...engine.gpu.off];
  });
}

describe("a way of computing that gives other bits is off, and answers are right without it", () => {
  test("several rows at once", { timeout: 120_000 }, async () => {
    const kept = memory();
    const off = await offAfter(miscompiling(/^norm_gate_up f32 M=[248]/, "fma(", "0.99999 * fma("), kept);
    expect(off.length).toBeGreaterThan(0);
    for (const variant of off) expect(variant).toMatch(/^M=[248]$/);
    const failed = Object.entries(await currentOutcomes(kept, gpu.adapter)).filter(([, { why }]) => why !== "");
    expect(failed).toHaveLength(off.length);
    for (const [name, { why }] of failed) {
      expect(name).toContain("self_test norm_gate_up f32 M=");
      expect(why).toContain("not equal");
    }
    expect(gpu.off.size).toBe(0);
  });

  test.runIf(isShared(xFrom(gpu))).each([
    ["x", /^norm_matmul f32 M=1 broadcast4?$/, "fma(", "1.001 * fma("],
    ["queries", /^attention_row .* broadcast4?$/, "select(exp(", "select(1.01 * exp("],
  ])("values of %s given from lane to lane", { timeout: 120_000 }, async (_, kernel, from, to) => {
    expect(await offAfter(miscompiling(kernel, from, to))).toEqual(["broadcast"]);
  });
});

test("a kernel without a stand-in that computes wrongly is refused by name, each time anew", {
  timeout: 120_000,
}, async () => {
  const { device } = miscompiling(/^norm_matmul f32 M=1( broadcast4?)?$/, "fma(", "1.001 * fma(");
  const kept = memory();
  for (let i = 0; i < 2; i++) {
    const loading = Engine.load(folder, { device, kept });
    await expect(loading).rejects.toMatchObject({ code: "ADAPTER_UNAVAILABLE" });
    await expect(loading).rejects.toThrow(
      /computes wrongly: self_test norm_matmul f32 M=1 against the CPU: .* NMSE .*; choose another adapter/,
    );
  }
  expect(gpu.memory.buffers).toBe(0);
  await withEngine(folder, { device: { gpu, pipelines }, kept }, (engine) => answer(engine, request)); // a driver that was updated
});

describe("what passed is kept", () => {
  const counted = countingDevice(gpu);
  const device = { gpu: counted.gpu, pipelines };
  const submits = async (kept: KeptTexts) => {
    counted.counts.reset();
    await withEngine(folder, { device, kept }, async () => {});
    return counted.counts.submits;
  };

  test("and not tried again", async () => {
    const kept = memory();
    const first = await submits(kept);
    const outcomes = Object.values(await currentOutcomes(kept, gpu.adapter));
    expect(outcomes.length).toBeGreaterThan(8);
    expect(outcomes.filter(({ why }) => why !== "")).toEqual([]);
    const again = await submits(kept);
    expect(first - again).toBeGreaterThan(2 * outcomes.length);
    expect(await submits(kept)).toBe(again);
  });

  test("for the kernels that it was: another text, or a broken one, is tried", async () => {
    const kept = memory();
    const first = await submits(kept);
    const again = await submits(kept);
    const [[name, text] = ["", ""]] = kept.texts;
    for (const other of [
      text.replaceAll(/"hash":"./g, '"hash":"x'),
      text.slice(0, 100),
      "null",
      '{"tests":[1,null]}',
      "",
    ]) {
      expect(await submits(memory(new Map([[name, other]])))).toBe(first);
    }
    expect(await submits(memory(new Map([[`other-${name}`, text]])))).toBe(first);
    expect(again).toBeLessThan(first);
  });
});
