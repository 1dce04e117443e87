/**
 * Activations of 1e5 and more: finite and right in every precision that the adapter has.
 *
 * Weights are scaled by powers of two such that the residual stream, or the MLP's product, is a million times as large and nothing else changes: a norm
 * divides by it, the way back by the other. So logits must be the same bits. Scores cannot be scaled for nothing; where they are so large that
 * each token sees one other alone, they can be larger still.
 */
import { describe, expect, test } from "vitest";
import type { EngineOptions } from "../engine/options.ts";
import { missingFor, PRECISIONS } from "../kernels/xFrom.ts";
import { distance, logitsOf } from "./expected.ts";
import { changed, numbersOf, readModel, shardedFolder } from "./saying.ts";
import { sharedDevice, withEngine } from "./sharedDevice.ts";
import { floats, randomTokens, type TinyModel, tinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
const device = await sharedDevice();
/** lavapipe compiles narrow kernels for minutes: there the full suite alone runs them. */
const SLOW = !FULL && /llvmpipe/i.test(device.gpu.adapter.name);
const HUGE = 2 ** 20;

/** The model with the weights of some modules multiplied by a power of two, biases too. */
function scaled(model: TinyModel, ...by: readonly (readonly [RegExp, number])[]): TinyModel {
  return changed(model, (tensor, name) => {
    const factor = by.reduce((all, [modules, each]) => (modules.test(name) ? all * each : all), 1);
    if (factor === 1 || tensor.dtype === "U32") return tensor;
    return floats(
      numbersOf(tensor).map((value) => value * factor),
      tensor.dtype === "BF16" ? "BF16" : "F32",
      tensor.shape,
    );
  });
}

const [QUERIES, KEYS, UP, DOWN] = [/\.q_proj\./, /\.k_proj\./, /\.up_proj\./, /\.down_proj\./];
const largeResidual = (model: TinyModel) => scaled(model, [/\.(embed_tokens|o_proj|down_proj)\./, HUGE]);
const largeProduct = (model: TinyModel) => scaled(model, [UP, HUGE], [DOWN, 1 / HUGE]);
const largeScores = (model: TinyModel, factor: number) => scaled(model, [QUERIES, factor], [KEYS, factor]);

const config = { rms_norm_eps: 1e-12 }; // or it would count less beside a larger stream
const mixture = await readModel(new URL("fixtures/families/qwen2_moe/", import.meta.url));
const models: Readonly<Record<string, TinyModel>> = {
  "a dense model": tinyModel({ layout: "affine4", scales: "F32", config }),
  "a mixture of experts": { ...mixture, config: { ...mixture.config, ...config } },
};

describe.each(Object.entries(models))("%s", (name, model) => {
  /** Experts multiply f32 in every precision. */
  const few = !FULL && name === "a mixture of experts";
  const tokens = randomTokens(3, 20, 97);
  const logits = (it: TinyModel, options: EngineOptions) =>
    withEngine(shardedFolder(it, 1), { device, context: 64, ...options }, (engine) => logitsOf(engine, tokens));

  for (const precision of PRECISIONS) {
    const missing = precision === "f32" ? null : missingFor(device.gpu, precision);
    test.skipIf(missing !== null || (precision !== "f32" && (SLOW || few)))(
      `${precision}${missing === null ? "" : ` (the adapter has no ${missing})`}`,
      { timeout: 600_000 },
      async () => {
        const options = { precision, kvType: "f32" } as const;
        const want = await logits(model, options);
        expect(want.flatMap((row) => [...row]).every(Number.isFinite)).toBe(true);
        expect(await logits(largeResidual(model), options)).toEqual(want);
        expect(await logits(largeProduct(model), options)).toEqual(want);
        const [large, larger] = [
          await logits(largeScores(model, 2 ** 7), options),
          await logits(largeScores(model, 2 ** 10), options),
        ];
        expect(distance(larger, large).max).toBeLessThan(1e-3);
        expect(distance(large, want).max).toBeGreaterThan(1e-2); // it is another model: scores are not as before
      },
    );
  }

  test.runIf(FULL)("with f16 keys and values, whose range is passed by none of it", async () => {
    const want = await logits(model, { kvType: "f16" });
    expect(await logits(largeResidual(model), { kvType: "f16" })).toEqual(want);
    expect(await logits(largeProduct(model), { kvType: "f16" })).toEqual(want);
  });
});
