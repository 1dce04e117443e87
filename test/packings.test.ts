/** One quantized model in another packing is one model: each format's fixture in a small model, said in every packing that it has, gives the same logits bit for bit. */
import { describe, expect, test } from "vitest";
import type { EngineOptions } from "../engine/options.ts";
import { distance, logitsOf } from "./expected.ts";
import { formatFixtures, modelAround } from "./formatFixtures.ts";
import { sayAll, shardedFolder } from "./saying.ts";
import { asMlx, floatPackings, integerPackings, statedTwice } from "./sayPackings.ts";
import { sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens, type TinyModel } from "./tinyModel.ts";

const FULL = process.env.INGLE_SUITE === "full";
/** One of each kind of packing; the rest runs in the full suite. */
const SHORT = ["gptq-4-v2-asym", "gptq-4-g32-actorder", "ct-w4a16-g128", "ct-int8-w8a8", "mlx-mxfp4", "fp8-block"];
/** Its experts are no module of the model below: `saidAnotherWay.test.ts` says gpt-oss as MLX does. */
const names = Object.keys(formatFixtures).filter((name) => name !== "mxfp4-gpt_oss");

const device = await sharedDevice();
const options: EngineOptions = { device, precision: "f32", kvType: "f32", context: 64 };
const tokens = randomTokens(9, 11, 96);
const logits = (model: TinyModel) => withEngine(shardedFolder(model, 1), options, (engine) => logitsOf(engine, tokens));

const ALL = [...integerPackings, ...floatPackings, statedTwice];

/** Names of fixtures by the packings that they were said in. */
const said = new Map<string, string[]>();
const note = (packing: string, name: string) => said.set(packing, [...(said.get(packing) ?? []), name]);

describe("in another packing", () => {
  test.each(FULL ? names : SHORT)("%s", async (name) => {
    const model = await modelAround(name);
    const want = await logits(model);
    for (const saying of ALL) {
      const { model: other, said: done } = sayAll(model, [saying]);
      if (done.length === 0) continue;
      note(saying.name, name);
      expect({ packing: saying.name, logits: await logits(other) }).toEqual({ packing: saying.name, logits: want });
    }
    const mlx = asMlx.say(model);
    if (mlx === null) return;
    note(asMlx.name, name);
    expect(distance(await logits(mlx), want).max).toBeLessThan(1e-4);
  });

  test("every packing was tried", () => {
    for (const [packing, of] of said) console.log(`${packing}: ${of.join(", ")}`);
    const all = [...(FULL ? ALL : [...integerPackings, statedTwice]), asMlx].map((it) => it.name);
    expect(all.filter((packing) => !said.has(packing))).toEqual([]);
  });
});
