/** Keys and values as int8: the same bits however steps fall, faults seen, and refused by layers that cannot have it. test/precision.test.ts has how near f32 they are. */
import { describe, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import { NonFiniteError } from "../engine/errors.ts";
import { logitsOf } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { floats, randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

const device = await sharedDevice();
const int8 = { device, kvType: "int8" } as const;

describe("a small model", () => {
  // Two KV heads of a length that is no power of two, and pages that are not full.
  const folder = tinyFolder(tinyModel({ heads: 4, kvHeads: 2, headDim: 40, context: 128 }));
  const prompt = randomTokens(7, 75, 97);

  test("alone, among others, in any chunks and token by token has the same bits", async () => {
    const alone = await withEngine(folder, int8, (engine) => logitsOf(engine, prompt));
    await withEngine(folder, { ...int8, rowsPerStep: 7 }, async (engine) => {
      const [among] = await Promise.all([logitsOf(engine, prompt), logitsOf(engine, randomTokens(4, 19, 97))]);
      expect(among).toEqual(alone);
      const said = await answer(engine, {
        tokens: prompt.slice(0, 70),
        maxTokens: 12,
        temperature: 0,
        ignoreEos: true,
      });
      const scored = await engine.score({ tokens: [...prompt.slice(0, 70), ...said.tokens] });
      expect(said.logprobs).toEqual(scored.logprobs.slice(70));
      expect(said.last.usage?.cachedTokens).toBeGreaterThan(0); // pages of the prompt were there
    });
  });

  test.each(["k_proj", "v_proj"])("%s with a NaN is seen", async (projection) => {
    const { config, tensors } = tinyModel();
    const name = `model.layers.0.self_attn.${projection}.weight`;
    const whole = tensors.get(name);
    if (whole === undefined) throw new RangeError(`${name}: no such tensor`);
    const values = new Float32Array(whole.bytes.slice().buffer);
    values[37] = Number.NaN;
    const broken = { config, tensors: new Map(tensors).set(name, floats(values, "F32", whole.shape)) };
    await withEngine(tinyFolder(broken), int8, async (engine) => {
      const tokens = randomTokens(1, 20, 97);
      await expect(answer(engine, { tokens, temperature: 0 })).rejects.toThrow(NonFiniteError);
    });
  });
});

test("latents are not kept as int8", async () => {
  const path = new URL("./fixtures/families/deepseek_v3/", import.meta.url).pathname;
  const refused = "--kv-type int8: layer 0 has latents, which one scale does not fit, expected f16 or f32";
  await expect(Engine.load(path, int8)).rejects.toThrow(refused);
  expect(device.gpu.memory.buffers).toBe(0);
});
