/** DeepSeek's families: what they take from a checkpoint, what a token leaves in the cache, which layers have experts. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { openFolder } from "../../device/nodeFiles.ts";
import { pageWords } from "../../kernels/attention/kv_page.ts";
import { PLAIN_KV_TYPES } from "../../kernels/attention/kv_types.ts";
import { PAGE_TOKENS } from "../../kernels/fragments/batch.ts";
import { latentModels } from "../../test/latentModels.ts";
import { shardedFolder } from "../../test/saying.ts";
import type { TinyModel } from "../../test/tinyModel.ts";
import { WeightPlan } from "../weightPlan.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { familyOf, readConfig } from "./registry.ts";

async function build(name: string) {
  const folder = new URL(`../../test/fixtures/families/${name}/`, import.meta.url);
  const config = readConfig(JSON.parse(readFileSync(new URL("config.json", folder), "utf8")));
  const checkpoint = await openCheckpoint(openFolder(folder));
  const weights = new WeightPlan(checkpoint, config.quantization);
  const model = familyOf(config.model_type).build(weights, config);
  await checkpoint.close();
  return { weights, model };
}

describe("a checkpoint", () => {
  test.each([
    ["deepseek_v2-group", 2],
    ["deepseek_v3", 3],
  ])("%s: every tensor is claimed, and a token keeps one latent and one rotated key a layer", async (name, layers) => {
    const { model, weights } = await build(name);
    expect(() => weights.finish()).not.toThrow();
    const cache = { kind: "pages", kvHeads: 1, headDim: 24 + 16, valueDim: 0, window: null };
    expect(model.caches).toEqual(Array(layers).fill(cache));
    for (const kvType of PLAIN_KV_TYPES) {
      const bytes = (4 * pageWords(kvType, cache.kvHeads, cache.headDim, cache.valueDim)) / PAGE_TOKENS;
      expect(bytes).toBe(40 * (kvType === "f16" ? 2 : 4));
    }
    const byHead = weights.matrices.filter(({ name }) => name.includes("kv_b_proj"));
    expect(byHead.map(({ parts, cols, unit }) => [parts.length, parts[0]?.rows, cols, unit])).toEqual(
      Array(layers)
        .fill([
          [3, 16, 24, 1],
          [3, 24, 24, 1],
        ])
        .flat(),
    );
  });
});

describe("keys by head as MLX quantizes them", () => {
  const [stacked] = latentModels();
  const plan = async (change: Partial<TinyModel>) => {
    const config = readConfig({ ...stacked.config, ...change.config });
    const checkpoint = await openCheckpoint(shardedFolder({ ...stacked, ...change }, 1));
    const weights = new WeightPlan(checkpoint, config.quantization);
    familyOf(config.model_type).build(weights, config);
    weights.finish();
    return weights.matrices;
  };

  test("become f32, by columns", async () => {
    const keys = (await plan({})).find(({ name }) => name.endsWith("embed_q"));
    expect(keys).toMatchObject({ layout: "f32", format: "mlx 4 bits, groups of 32 of inputs, as f32", cols: 32 });
    expect(keys?.parts.map(({ rows }) => rows)).toEqual([32, 32]);
  });

  test("are refused by name where they are something else", async () => {
    const path = "model.layers.0.self_attn.embed_q";
    const other = (quantization: object) => plan({ config: { ...stacked.config, quantization } });
    await expect(other({ mode: "mxfp4", bits: 4, group_size: 32 })).rejects.toThrow(
      `${path}: stored by mode mxfp4, supported: affine`,
    );
    await expect(other({ bits: 4, group_size: 64 })).rejects.toThrow(
      `${path}.weight: 32 inputs, expected a multiple of group_size 64`,
    );
    await expect(other({ bits: 8, group_size: 32 })).rejects.toThrow(
      `${path}.weight: shape (2, 32, 4), expected (64, 8) from 8 bits and group_size 32 in config.json, inputs first`,
    );
    const without = new Map([...stacked.tensors].filter(([name]) => name !== `${path}.biases`));
    await expect(plan({ tensors: without })).rejects.toThrow(`lacks 1 tensor: ${path}.biases`);
  });
});

describe("layers with experts", () => {
  const sizes = {
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 6,
    num_attention_heads: 4,
    vocab_size: 97,
    num_experts_per_tok: 2,
  };
  test.each([
    ["deepseek_v2", {}, [0, 1, 2, 3, 4, 5]],
    ["deepseek_v2", { first_k_dense_replace: 2 }, [2, 3, 4, 5]],
    ["deepseek_v3", {}, [3, 4, 5]],
    ["deepseek_v3", { first_k_dense_replace: 1, moe_layer_freq: 2 }, [2, 4]],
  ])("%s with %j", (model_type, keys, want) => {
    const { moe } = readConfig({ model_type, ...sizes, ...keys });
    expect(Array.from({ length: 6 }, (_, i) => i).filter((layer) => moe?.sparse(layer))).toEqual(want);
  });
});
