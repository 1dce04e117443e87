/** How many dispatches a family's decode step has: recorded without a device, and held to what the head of its file states. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Gpu } from "../../device/gpu.ts";
import type { PipelineCache } from "../../device/pipelines.ts";
import { type Launch, Recorder } from "../../device/program.ts";
import { normalizeConfig } from "../config.ts";
import type { Step } from "../step.ts";
import { WeightPlan } from "../weightPlan.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
import { familyNames, familyOf } from "./registry.ts";

const SIZES = {
  hidden_size: 64,
  intermediate_size: 96,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 16,
  vocab_size: 97,
};

/** Keys that a family cannot do without, or which choose another of its forms. */
const MORE: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  gpt2: { n_embd: 64, n_head: 4 },
  gemma3: { text_config: {} },
  deepseek_v2: { num_experts_per_tok: 6 },
  deepseek_v3: { first_k_dense_replace: 0 },
  glm4_moe: { first_k_dense_replace: 0 },
  ernie4_5_moe: { moe_layer_start_index: 0 },
  qwen3_next: { full_attention_interval: 1 },
};

/** Counts what is recorded. */
class CountingRecorder extends Recorder {
  readonly labels: string[] = [];
  override dispatch(launch: Omit<Launch, "label">, label: string): void {
    super.dispatch(launch, label);
    this.labels.push(this.label === "" ? label : `${this.label} ${label}`);
  }
}

/** A buffer that nothing reads: recording keeps it and no more. */
const BUFFER = {} as GPUBuffer;
const LIMITS = {
  maxComputeWorkgroupsPerDimension: 65_535,
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
};
const GPU = { adapter: { kind: "software" }, limits: LIMITS, features: new Set(), off: new Set() } as unknown as Gpu;

/** Labels of a decode step of one sequence, the sampler not counted. */
function decodeStep(name: string, layers: number, keys: Readonly<Record<string, unknown>> = {}): readonly string[] {
  const family = familyOf(name);
  const sizes = { ...SIZES, num_hidden_layers: layers, n_layer: layers };
  const config = normalizeConfig({ model_type: name, ...sizes, ...MORE[name], ...keys }, family.config);
  const empty = { location: "nowhere", tensors: new Map() } as unknown as Checkpoint;
  const weights = new WeightPlan(empty, null);
  const model = family.build(weights, config);
  for (const matrix of weights.matrices) {
    matrix.shards = [{ firstBlock: 0, blocks: matrix.blocks, words: BUFFER, scales: undefined }];
  }
  const recorder = new CountingRecorder(GPU, {} as PipelineCache);
  const buffers = { batch: BUFFER, ropes: [BUFFER, BUFFER], aux: BUFFER, kv: Array(layers).fill(BUFFER), groups: [] };
  const bucket = { rows: 1, oneRowEach: true, splits: 0, samples: 1, everyRow: true, samplesAt: 0 };
  const step: Step = { ...buffers, ...bucket, recorder, kvType: "f32", precision: "f32" };
  model.forward(step);
  return recorder.labels;
}

/** "5 L + 3" of a file's head. */
function stated(name: string): { readonly layer: number; readonly around: number } {
  const file = readFileSync(new URL(`./${name}.ts`, import.meta.url), "utf8");
  const [, layer, around] = /^\/\*\*[\s\S]*?(\d+) L \+ (\d+)[\s\S]*?\*\//.exec(file) ?? [];
  return { layer: Number(layer), around: Number(around) };
}

describe("a decode step has as many dispatches as the head of the family's file says", () => {
  test.each(familyNames())("%s", (name) => {
    const { layer, around } = stated(name);
    for (const layers of [1, 4]) {
      const labels = decodeStep(name, layers);
      const sampler = 1;
      expect(labels.length + sampler, labels.join("\n")).toBe(layer * layers + around);
    }
  });

  test.each<[string, string, Readonly<Record<string, unknown>>, number, number]>([
    ["stablelm", "attention and MLP at once", { use_parallel_residual: true }, 6, 4],
    ["gpt_neox", "one after the other", { use_parallel_residual: false }, 8, 4],
    ["cohere", "q and k normed", { use_qk_norm: true }, 6, 4],
    ["glm4_moe", "layers without experts", { first_k_dense_replace: 3 }, 5, 3],
    ["deepseek_v3", "layers without experts", { first_k_dense_replace: 3 }, 9, 3],
    ["deepseek_v2", "queries at once", { q_lora_rank: null }, 9, 3],
    ["deepseek_v2", "a latent of no whole runs", { kv_lora_rank: 40 }, 11, 3],
    ["qwen3_moe", "layers without experts", { mlp_only_layers: [0, 1, 2] }, 5, 3],
    ["lfm2", "convolutions alone", { full_attn_idxs: [] }, 5, 3],
    ["qwen3_next", "linear attention alone", { full_attention_interval: 9 }, 7, 3],
    ["qwen3_next", "no experts", { mlp_only_layers: [0, 1, 2] }, 5, 3],
    ["gemma2", "no cap on the logits", { final_logit_softcapping: null }, 7, 3],
    ["gemma3_text", "a cap on the logits", { final_logit_softcapping: 30 }, 7, 4],
  ])("%s, %s", (name, _, keys, layer, around) => {
    const labels = decodeStep(name, 3, keys);
    expect(labels.length + 1, labels.join("\n")).toBe(layer * 3 + around);
  });
});
