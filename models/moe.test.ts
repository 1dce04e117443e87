/** Mixtures of experts: what they take from a checkpoint, from names and shapes alone. */
import { describe, expect, test } from "vitest";
import { normalizeConfig } from "./config.ts";
import { familyOf } from "./families/registry.ts";
import { WeightPlan } from "./weightPlan.ts";
import type { Checkpoint } from "./weights/checkpoint.ts";

const [HIDDEN, INNER, EXPERTS, VOCAB] = [64, 24, 3, 97];
const SIZES = {
  hidden_size: HIDDEN,
  intermediate_size: INNER,
  moe_intermediate_size: INNER,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 32,
  vocab_size: VOCAB,
};
type Shapes = Record<string, readonly number[]>;

/** Norms, embedding and head; attention with biases or without. */
const around = (bias: boolean): Shapes => ({
  "model.embed_tokens.weight": [VOCAB, HIDDEN],
  "lm_head.weight": [VOCAB, HIDDEN],
  "model.norm.weight": [HIDDEN],
  "model.layers.0.input_layernorm.weight": [HIDDEN],
  "model.layers.0.post_attention_layernorm.weight": [HIDDEN],
  ...projection("model.layers.0.self_attn.q_proj", 64, HIDDEN, bias),
  ...projection("model.layers.0.self_attn.k_proj", 32, HIDDEN, bias),
  ...projection("model.layers.0.self_attn.v_proj", 32, HIDDEN, bias),
  ...projection("model.layers.0.self_attn.o_proj", HIDDEN, 64, bias),
});

const projection = (module: string, rows: number, cols: number, bias: boolean): Shapes => ({
  [`${module}.weight`]: [rows, cols],
  ...(bias ? { [`${module}.bias`]: [rows] } : {}),
});

const gated = (path: string, [gate, up, down]: readonly string[], inner: number, bias: boolean): Shapes => ({
  ...projection(`${path}.${gate}`, inner, HIDDEN, bias),
  ...projection(`${path}.${up}`, inner, HIDDEN, bias),
  ...projection(`${path}.${down}`, HIDDEN, inner, bias),
});

/** The plan of a family's model from tensors of these shapes, of F32 but for those in `dtypes`. */
function planOf(
  model_type: string,
  keys: Readonly<Record<string, unknown>>,
  shapes: Shapes,
  dtypes: Readonly<Record<string, string>> = {},
): WeightPlan {
  const family = familyOf(model_type);
  const config = normalizeConfig({ model_type, ...SIZES, ...keys }, family.config);
  const tensors = new Map(
    Object.entries(shapes).map(([name, shape]) => [
      name,
      { name, dtype: dtypes[name] ?? "F32", shape, begin: 0, end: 0, source: { name } },
    ]),
  );
  const plan = new WeightPlan({ location: "here", tensors } as unknown as Checkpoint, null);
  family.build(plan, config);
  return plan;
}

describe("shared experts with biases", () => {
  const experts = Array.from({ length: EXPERTS }, (_, e) =>
    gated(`model.layers.0.mlp.experts.${e}`, ["gate_proj", "up_proj", "down_proj"], INNER, false),
  );
  const shared = gated("model.layers.0.mlp.shared_experts", ["gate_proj", "up_proj", "down_proj"], 2 * INNER, true);
  const shapes: Shapes = {
    ...around(true),
    ...shared,
    ...Object.assign({}, ...experts),
    "lm_head.bias": [VOCAB],
    "model.layers.0.mlp.gate.weight": [EXPERTS, HIDDEN],
    "model.layers.0.mlp.moe_statics.e_score_correction_bias": [1, EXPERTS],
  };
  const keys = {
    use_bias: true,
    tie_word_embeddings: false,
    moe_num_experts: EXPERTS,
    moe_k: 2,
    moe_num_shared_experts: 2,
    moe_layer_start_index: 0,
  };

  test("are taken in parts, and what is added to their sum once", () => {
    const plan = planOf("ernie4_5_moe", keys, shapes);
    plan.finish();
    const taken = (end: string) =>
      plan.vectors.filter(({ tensor }) => tensor.name.endsWith(end)).map(({ from, count }) => [from(0), count]);
    expect(taken("shared_experts.gate_proj.bias")).toEqual([
      [0, INNER],
      [INNER, INNER],
    ]);
    expect(taken("shared_experts.down_proj.bias")).toEqual([[0, HIDDEN]]);
  });

  test("are missing where config.json says that there are some", () => {
    const without = { ...shapes };
    delete without["model.layers.0.mlp.shared_experts.up_proj.bias"];
    expect(() => planOf("ernie4_5_moe", keys, without).finish()).toThrow("shared_experts.up_proj.bias");
  });
});

describe("the form of a checkpoint's experts", () => {
  const mixtral: Shapes = {
    ...around(false),
    "model.layers.0.block_sparse_moe.gate.weight": [EXPERTS, HIDDEN],
    ...Object.assign(
      {},
      ...Array.from({ length: EXPERTS }, (_, e) =>
        gated(`model.layers.0.block_sparse_moe.experts.${e}`, ["w1", "w3", "w2"], INNER, false),
      ),
    ),
  };
  const stack: Shapes = {
    ...around(false),
    "model.layers.0.mlp.gate.weight": [EXPERTS, HIDDEN],
    "model.layers.0.mlp.experts.gate_up_proj": [EXPERTS, 2 * INNER, HIDDEN],
    "model.layers.0.mlp.experts.down_proj": [EXPERTS, HIDDEN, INNER],
  };
  const mlx: Shapes = {
    ...around(false),
    "model.layers.0.mlp.gate.weight": [EXPERTS, HIDDEN],
    "model.layers.0.mlp.switch_mlp.gate_proj.weight": [EXPERTS, INNER, HIDDEN],
    "model.layers.0.mlp.switch_mlp.up_proj.weight": [EXPERTS, INNER, HIDDEN],
    "model.layers.0.mlp.switch_mlp.down_proj.weight": [EXPERTS, HIDDEN, INNER],
  };
  const keys = { num_local_experts: EXPERTS, num_experts_per_tok: 2, sliding_window: null };

  test.each([mixtral, stack, mlx])(
    "is told by any of its tensors, so that each is missing by its own name: %#",
    (all) => {
      planOf("mixtral", keys, all).finish();
      for (const name of Object.keys(all).filter((it) => /mlp|moe/.test(it))) {
        const { [name]: _, ...rest } = all;
        expect(() => planOf("mixtral", keys, rest).finish()).toThrow(`lacks 1 tensor: ${name}`);
      }
    },
  );
});

test("a router and a shared expert's gate of two types are one matrix, and either is missing by its name", () => {
  const path = "model.layers.0.mlp";
  const shapes: Shapes = {
    ...around(false),
    [`${path}.gate.weight`]: [EXPERTS, HIDDEN],
    [`${path}.shared_expert_gate.weight`]: [1, HIDDEN],
    ...gated(`${path}.shared_expert`, ["gate_proj", "up_proj", "down_proj"], INNER, false),
    [`${path}.experts.gate_up_proj`]: [EXPERTS, 2 * INNER, HIDDEN],
    [`${path}.experts.down_proj`]: [EXPERTS, HIDDEN, INNER],
  };
  const keys = {
    num_experts: EXPERTS,
    num_experts_per_tok: 2,
    qkv_bias: false,
    shared_expert_intermediate_size: INNER,
  };
  const halves = { [`${path}.gate.weight`]: "BF16", [`${path}.shared_expert_gate.weight`]: "F16" };
  const plan = planOf("qwen2_moe", keys, shapes, halves);
  plan.finish();
  const router = plan.matrices.find(({ parts }) => parts.some(({ module }) => module === `${path}.gate`));
  expect(router).toMatchObject({ layout: "f32", parts: [{ module: `${path}.gate` }, {}] });
  for (const name of Object.keys(halves)) {
    const { [name]: _, ...rest } = shapes;
    expect(() => planOf("qwen2_moe", keys, rest, halves).finish()).toThrow(`lacks 1 tensor: ${name}`);
  }
});

test("biases of a stack of experts are a row an expert", () => {
  const path = "model.layers.0.mlp";
  const shapes: Shapes = {
    ...around(false),
    "model.layers.0.self_attn.sinks": [2],
    [`${path}.router.weight`]: [EXPERTS, HIDDEN],
    [`${path}.router.bias`]: [EXPERTS],
    [`${path}.experts.gate_up_proj`]: [EXPERTS, HIDDEN, 2 * INNER],
    [`${path}.experts.gate_up_proj_bias`]: [EXPERTS, 2 * INNER],
    [`${path}.experts.down_proj`]: [EXPERTS, INNER, HIDDEN],
    [`${path}.experts.down_proj_bias`]: [EXPERTS, HIDDEN],
  };
  const keys = { num_local_experts: EXPERTS, num_experts_per_tok: 2, attention_bias: false };
  planOf("gpt_oss", keys, shapes).finish();
  const turned = { ...shapes, [`${path}.experts.down_proj_bias`]: [HIDDEN, EXPERTS] };
  expect(() => planOf("gpt_oss", keys, turned)).toThrow(
    "experts.down_proj_bias: shape (64, 3), expected (3, 64) from config.json",
  );
});
