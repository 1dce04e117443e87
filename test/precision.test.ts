/** The precisions that are asked for by name, and keys and values as int8: near f32, the same bits within one, faults seen, and refused where the adapter cannot. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { AdapterDescription } from "../device/adapters.ts";
import { AdapterUnavailableError } from "../device/errors.ts";
import { Engine } from "../engine/engine.ts";
import { NonFiniteError } from "../engine/errors.ts";
import { planPrecision, precisionLine } from "../engine/precision.ts";
import { missingFor } from "../kernels/xFrom.ts";
import { layerDispatches } from "./countingDevice.ts";
import { distance, logitsOf, logSoftmax } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { expectSums } from "./sums.ts";
import { floats, randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

/** Largest and mean distance of a log-probability from that in f32. */
const NEAR = { f16: { max: 0.1, mean: 0.01 }, int8: { max: 1, mean: 0.1 } } as const;
const MODES = ["f16", "int8"] as const;
const TEXT =
  "Once upon a time there was a little girl who lived near the forest with her brother and a small brown dog. " +
  "One morning they found a key under the old tree, and the dog began to bark.";

const device = await sharedDevice();
const options = { device, kvType: "f32" } as const;
/** lavapipe compiles these kernels for minutes, f16 above all: there the full suite alone runs them. */
const SLOW = process.env.INGLE_SUITE !== "full" && /llvmpipe/i.test(device.gpu.adapter.name);
const reasons = MODES.map((mode) => ({ mode, missing: missingFor(device.gpu, mode) }));

/** The text's tokens and their logits in f32, computed once. */
async function inF32() {
  return withEngine("default-draft", { ...options, precision: "f32" }, async (engine) => {
    const tokens = engine.model.tokenizer?.encode(TEXT, { addSpecialTokens: true, parseSpecial: true }) ?? [];
    expect(engine.stats().precision).toEqual({ mode: "f32", layouts: ["affine4", "affine8"], others: [] });
    return { tokens, exact: await logitsOf(engine, tokens) };
  });
}
const { tokens, exact } = SLOW ? { tokens: [], exact: [] } : await inF32();

for (const { mode, missing } of reasons) {
  describe.skipIf(SLOW || missing !== null)(
    `${mode}${missing === null ? "" : ` (the adapter has no ${missing})`}`,
    () => {
      let engine: Engine;
      beforeAll(async () => {
        engine = await Engine.load("default-draft", { ...options, precision: mode });
      });
      afterEach(() => expectSums(engine));
      afterAll(() => engine.close());

      test("a trained model's log-probabilities are near those in f32, and not the same", async () => {
        const { max, mean } = distance(await logitsOf(engine, tokens), exact);
        console.log(`${mode}: max ${max}, mean ${mean} from f32 over ${tokens.length} tokens`);
        expect(max).toBeLessThanOrEqual(NEAR[mode].max);
        expect(mean).toBeLessThanOrEqual(NEAR[mode].mean);
        expect(max).toBeGreaterThan(1e-5); // it is another computation, or the option does nothing
      });

      test("token by token and beside others gives the bits of a prompt in one piece", async () => {
        const request = { tokens: tokens.slice(0, 9), maxTokens: 12, temperature: 0, ignoreEos: true };
        const others = [3, 17, 40].map((length, i) => engine.score({ tokens: randomTokens(i, length, 2048) }));
        const said = await answer(engine, request);
        await Promise.all(others);
        const scored = await engine.score({ tokens: [...request.tokens, ...said.tokens] });
        const want = scored.logprobs.slice(request.tokens.length).map((value) => value ?? Number.NaN);
        expect(said.logprobs).toEqual(want);
        const alone = await logitsOf(engine, tokens);
        const [together] = await Promise.all([
          logitsOf(engine, tokens),
          ...[5, 30].map((n) => logitsOf(engine, randomTokens(n, n, 2048))),
        ]);
        expect(together).toEqual(alone);
      });

      test("what it reaches is said, and costs a dispatch a matmul", async () => {
        expect(engine.stats().precision).toEqual({ mode, layouts: ["affine4", "affine8"], others: [] });
        const cost = async (maxTokens: number) => {
          const before = engine.stats().device.dispatches;
          await answer(engine, { tokens: tokens.slice(0, 9), maxTokens, temperature: 0, ignoreEos: true });
          return engine.stats().device.dispatches - before;
        };
        const layers = engine.model.config.num_hidden_layers;
        expect((await cost(6)) - (await cost(1))).toBe(5 * (layerDispatches(device.gpu) * layers + 4 + 4 * layers + 1));
      });
    },
  );
}

/** Of keys and values as int8, and of the mean log-probability of the text's own tokens. */
const NEAR_KV = { max: 1, mean: 0.1, text: 0.02 };

test.skipIf(SLOW)(
  "with keys and values as int8 log-probabilities are near those in f32, and not the same",
  async () => {
    const kept = await withEngine("default-draft", { device, kvType: "int8" }, (engine) => logitsOf(engine, tokens));
    const { max, mean } = distance(kept, exact);
    const said = (rows: typeof exact) =>
      tokens.slice(1).reduce((sum, id, t) => sum + (logSoftmax(rows[t] ?? [])[id] ?? Number.NaN), 0) /
      (tokens.length - 1);
    const text = said(kept) - said(exact);
    console.log(`kv int8: max ${max}, mean ${mean}, of the text ${text} from f32 over ${tokens.length} tokens`);
    expect(max).toBeLessThanOrEqual(NEAR_KV.max);
    expect(mean).toBeLessThanOrEqual(NEAR_KV.mean);
    expect(Math.abs(text)).toBeLessThanOrEqual(NEAR_KV.text);
    expect(max).toBeGreaterThan(1e-5); // it is another computation, or the option does nothing
  },
);

// Bytes need nothing but WGSL's own dot product, which Dawn has on every adapter.
test.skipIf(SLOW)("a value that is not finite is seen through bytes", async () => {
  const { config, tensors } = tinyModel({ layout: "affine4" });
  const name = "model.layers.0.mlp.down_proj.scales";
  const scales = tensors.get(name);
  if (scales === undefined) throw new RangeError(`${name}: no such tensor`);
  const broken = floats(
    new Float32Array((scales.shape[0] ?? 0) * (scales.shape[1] ?? 0)).fill(0.01),
    "F16",
    scales.shape,
  );
  new Uint16Array(broken.bytes.buffer, broken.bytes.byteOffset, 1)[0] = 0x7e00;
  const folder = tinyFolder({ config, tensors: new Map([...tensors, [name, broken]]) });
  await withEngine(folder, { device, precision: "int8" }, async (engine) => {
    const tokens = randomTokens(1, 20, 97);
    await expect(answer(engine, { tokens, temperature: 0 })).rejects.toThrow(NonFiniteError);
    await expect(engine.score({ tokens })).rejects.toThrow(NonFiniteError);
  });
});

describe("the choice", () => {
  const adapter = { name: "plain", languageFeatures: [] as readonly string[] } as AdapterDescription;
  const gpu = { adapter, features: new Set<string>() };
  const matrices = [
    { layout: "affine4", unit: 1 },
    { layout: "f16", unit: 2 },
    { layout: "affine8", unit: 12 },
  ] as const;

  test("is f32 as unset and with auto, wherever", () => {
    for (const wanted of [undefined, "auto", "f32"] as const) {
      const plan = planPrecision(gpu, wanted, matrices);
      expect(plan).toEqual({ mode: "f32", layouts: ["affine4", "affine8", "f16"], others: [] });
    }
  });

  test.each([
    ["f16", "shader-f16"],
    ["int8", "packed_4x8_integer_dot_product"],
  ] as const)("%s is refused without %s, before anything is loaded", (mode, feature) => {
    expect(() => planPrecision(gpu, mode, matrices)).toThrow(AdapterUnavailableError);
    expect(() => planPrecision(gpu, mode, matrices)).toThrow(
      `precision ${mode}: adapter "plain" has no ${feature}, expected one that has; choose --precision f32 or another --adapter`,
    );
    const has = { adapter: { ...adapter, languageFeatures: [feature] }, features: new Set<string>() };
    expect(precisionLine(planPrecision(has, mode, matrices))).toBe(
      `precision ${mode}: matrices of affine4; in f32: experts, f16`,
    );
  });
});
