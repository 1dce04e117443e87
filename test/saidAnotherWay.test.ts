/** One model said another way is one model: every fixture of a family, re-sharded, renamed and respelled, gives the same logits bit for bit. */
import { existsSync, readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import type { Folder } from "../device/files.ts";
import { openFolder } from "../device/nodeFiles.ts";
import type { EngineOptions } from "../engine/options.ts";
import { logitsOf } from "./expected.ts";
import { latentModels } from "./latentModels.ts";
import { bothSpellings, layersByRule, otherSpelling } from "./sayConfig.ts";
import { readModel, type Saying, sayAll, shardedFolder } from "./saying.ts";
import { mlxConversion } from "./sayMlx.ts";
import { buffers, fusedExperts, otherNames, smallInF32, stackedExperts, tiedTwice, untied } from "./sayTensors.ts";
import { sharedDevice, withEngine } from "./sharedDevice.ts";
import { randomTokens } from "./tinyModel.ts";

/** INGLE_GOLDEN names a folder of other checkpoints, all of which are tried. */
const GOLDEN = process.env.INGLE_GOLDEN;
const FIXTURES = GOLDEN === undefined ? new URL("./fixtures/families/", import.meta.url) : pathToFileURL(`${GOLDEN}/`);
const FULL = process.env.INGLE_SUITE === "full" || GOLDEN !== undefined;
/** Fixtures that have something to be said so, where not all 25 have. */
const LEAST: Readonly<Record<string, number>> = {
  [layersByRule.name]: 5,
  [tiedTwice.name]: 12,
  [untied.name]: 12,
  [otherNames.name]: 3,
  [fusedExperts.name]: 6,
  [stackedExperts.name]: 7,
  [smallInF32.name]: 14,
  [mlxConversion.name]: 5,
};

/** All that one load can say at once: each fixture is said one of these ways, in the full suite both. */
const WAYS: readonly { readonly name: string; readonly shards: number; readonly sayings: readonly Saying[] }[] = [
  {
    name: "as transformers might write it",
    shards: 3,
    sayings: [otherSpelling, layersByRule, otherNames, tiedTwice, buffers, fusedExperts],
  },
  {
    name: "as MLX might write it",
    shards: 1,
    sayings: [bothSpellings, smallInF32, stackedExperts, mlxConversion, untied],
  },
];

const device = await sharedDevice();
const options: EngineOptions = { device, precision: "f32", kvType: "f32", context: 96 };
const tokens = randomTokens(5, 24, 120); // less than any vocabulary
const logits = (folder: Folder) => withEngine(folder, options, (engine) => logitsOf(engine, tokens));

/** Buffers and biases; experts; latents; keys and values by head; linear attention; a rope for each kind of layer; weights turned. */
const SHORT = ["deepseek_v3", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "lfm2", "llama-bf16-sharded", "qwen3_next"];
const names = readdirSync(FIXTURES, { withFileTypes: true })
  .flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
  .filter((name) => existsSync(new URL(`${name}/config.json`, FIXTURES)))
  .filter((name) => FULL || SHORT.includes(name));
/** Fixtures that each saying had something to say of. */
const applied = new Map<string, string[]>();

describe("as others write it", () => {
  test.each(names)("%s", async (name) => {
    const folder = new URL(`${name}/`, FIXTURES);
    const model = await readModel(folder);
    const want = await logits(openFolder(folder));
    expect(want).toHaveLength(tokens.length);
    for (const { name: way, shards, sayings } of FULL ? WAYS : WAYS.slice(names.indexOf(name) % 2).slice(0, 1)) {
      const { model: other, said, unsaid } = sayAll(model, sayings);
      for (const saying of said) applied.set(saying, [...(applied.get(saying) ?? []), name]);
      console.log(`${name} ${way}: ${said.join(", ")}. Nothing to say: ${unsaid.join(", ")}`);
      expect({ way, logits: await logits(shardedFolder(other, shards)) }).toEqual({ way, logits: want });
    }
  });

  test.skipIf(GOLDEN !== undefined)("every way to say it was tried", () => {
    const all = WAYS.flatMap(({ sayings }) => sayings.map((it) => it.name));
    const least = (saying: string) => (FULL ? (LEAST[saying] ?? 25) : 1);
    const lacking = all.filter((saying) => (applied.get(saying)?.length ?? 0) < least(saying));
    expect(lacking).toEqual([]);
  });
});

test("MLX's keys by head, quantized along their inputs, are the numbers that they stand for", async () => {
  const [stacked, plain, joined] = latentModels();
  const want = await logits(shardedFolder(joined, 1));
  expect(await logits(shardedFolder(plain, 1))).toEqual(want);
  expect(await logits(shardedFolder(stacked, 1))).toEqual(want);
});
