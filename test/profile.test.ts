/** Profiles of steps: every dispatch once, in order, by the GPU's clock; a clear word where the adapter has none. */
import { describe, expect, test } from "vitest";
import { chosenCounts } from "../bench/chosenExperts.ts";
import { chromeTrace } from "../bench/chromeTrace.ts";
import { readRate } from "../bench/read_rate.ts";
import { Arena } from "../device/arena.ts";
import { createBuffer } from "../device/buffers.ts";
import { openGpu } from "../device/gpu.ts";
import { PipelineCache } from "../device/pipelines.ts";
import { Profiler } from "../device/profiler.ts";
import { Recorder } from "../device/program.ts";
import { Engine } from "../engine/engine.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const LAYERS = 3;
const VOCAB = 97;
const device = await sharedDevice();
const { gpu } = device;
const timed = gpu.features.has("timestamp-query");
const folder = tinyFolder(tinyModel({ layers: LAYERS, vocab: VOCAB }));
const request = { tokens: randomTokens(1, 5, VOCAB), maxTokens: 4, temperature: 0, ignoreEos: true };

describe.runIf(timed)("a profile", () => {
  test("has every dispatch of every step once, in order and with its layer", async () => {
    const profiler = new Profiler();
    await withEngine(folder, { device, profiler }, async (engine) => {
      const plain = await answer(engine, { ...request, tokens: randomTokens(2, 5, VOCAB) });
      expect(plain.tokens).toHaveLength(4);
      expect(await profiler.steps()).toEqual([]); // warm-up and what came before `start` are in none
      const before = engine.stats().device;
      profiler.start("answer");
      await answer(engine, request);
      profiler.stop();
      const after = engine.stats().device;
      await answer(engine, request);
      const steps = await profiler.steps();
      expect(steps).toHaveLength(request.maxTokens); // of which several may be submitted at once
      const dispatches = steps.flatMap((step) => step.dispatches);
      expect(dispatches).toHaveLength(after.dispatches - before.dispatches);
      const last = steps.at(-1)?.dispatches.map(({ label }) => label) ?? [];
      expect(last[0]).toBe("embed_tokens");
      const layers = last.flatMap((label) => /^layers\.(\d+) \w/.exec(label)?.[1] ?? []).map(Number);
      expect(layers).toEqual(layers.toSorted((a, b) => a - b));
      expect(new Set(layers)).toEqual(new Set([0, 1, 2]));
      expect(last.filter((label) => label.endsWith("gate_up_proj"))).toHaveLength(LAYERS);
    });
  });

  test("is a trace whose events follow each other without overlap, each inside its step", async () => {
    const profiler = new Profiler();
    await withEngine(folder, { device, profiler }, async (engine) => {
      profiler.start("answer");
      await answer(engine, request);
    });
    const text = JSON.stringify(chromeTrace(await profiler.steps(), { adapter: gpu.adapter.name }));
    const { traceEvents }: ReturnType<typeof chromeTrace> = JSON.parse(text);
    const slices = (tid: number) =>
      traceEvents
        .filter((it) => it.ph === "X" && it.tid === tid)
        .map(({ ts = Number.NaN, dur = Number.NaN, args }) => {
          return { begin: ts, end: ts + dur, step: Number(args.step) };
        });
    const [steps, dispatches] = [slices(1), slices(2)];
    expect(steps.length).toBeGreaterThan(2);
    const slack = 1e-3; // µs: sums of doubles
    for (const [i, { begin, end, step }] of dispatches.entries()) {
      expect(end).toBeGreaterThanOrEqual(begin);
      expect(begin).toBeGreaterThanOrEqual((dispatches[i - 1]?.end ?? 0) - slack);
      expect(begin).toBeGreaterThanOrEqual((steps[step]?.begin ?? Number.NaN) - slack);
      expect(end).toBeLessThanOrEqual((steps[step]?.end ?? Number.NaN) + slack);
    }
    expect(dispatches.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBeGreaterThan(0);
  });

  test("counts the experts that tokens were sent to, prompt and answer", async () => {
    const profiler = new Profiler();
    const mixture = new URL("fixtures/families/qwen3_moe-nonorm/", import.meta.url).pathname;
    await withEngine(mixture, { device, profiler, context: 96 }, async (engine) => {
      profiler.start("answer");
      const { tokens } = await answer(engine, request);
      profiler.stop();
      const steps = await profiler.steps();
      // The last token of the answer is drawn and not computed.
      const computed = [...request.tokens, ...tokens.slice(0, -1)];
      const { experts = [] } = await engine.score({ tokens: computed, experts: true });
      expect(experts.flat()).toHaveLength(computed.length); // one layer of three has experts
      const want = experts.map((places) =>
        Array.from({ length: 8 }, (_, expert) => places.flat().filter((id) => id === expert).length),
      );
      expect(chosenCounts(steps, 8)).toEqual(want);
    });
  });

  test("takes a program of more dispatches than one query set has stamps for", { timeout: 120_000 }, async () => {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const data = createBuffer(gpu, { label: "data", size: 256, usage });
    const out = createBuffer(gpu, { label: "out", size: 64 * 16, usage });
    const arena = new Arena(gpu);
    const recorder = new Recorder(gpu, new PipelineCache(gpu));
    for (let i = 0; i < 2050; i++) {
      readRate.launch(recorder, { buffers: { data, out }, params: { vecs: 16 }, grid: [1, 1, 1] }, `read ${i}`);
    }
    const program = await recorder.finish(arena);
    const profiler = new Profiler();
    profiler.attach(gpu);
    profiler.start("reads");
    const live = gpu.memory.buffers;
    const encoder = gpu.device.createCommandEncoder();
    const submitted = profiler.encode(encoder, program, "all");
    gpu.device.queue.submit([encoder.finish()]);
    submitted?.();
    const [step] = await profiler.steps();
    expect(step?.dispatches.map(({ label }) => label)).toEqual(program.dispatches.map(({ label }) => label));
    expect(step?.dispatches[2049]?.end).toBeGreaterThan(step?.dispatches[0]?.begin ?? Number.NaN);
    expect(gpu.memory.buffers).toBe(live); // stamps are gone
    program.destroy();
    arena.destroy();
  });
});

test("an adapter without timestamps is refused by name, before the model is loaded", async () => {
  const without = await openGpu({ features: "none" });
  try {
    const profiler = new Profiler();
    const load = Engine.load(folder, { device: { gpu: without, pipelines: new PipelineCache(without) }, profiler });
    await expect(load).rejects.toThrow(`profile: "${without.adapter.name}" has no timestamp-query`);
  } finally {
    without.close();
  }
});
