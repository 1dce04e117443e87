import { expect, test } from "vitest";
import { ModelFormatError } from "./errors.ts";
import { readConfig } from "./families/registry.ts";

const SIZES = {
  hidden_size: 64,
  intermediate_size: 96,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  num_hidden_layers: 4,
  vocab_size: 97,
};
const QWEN = { model_type: "qwen3_moe", ...SIZES, moe_intermediate_size: 32, num_experts: 6, num_experts_per_tok: 2 };
const GLM = { model_type: "glm4_moe", ...SIZES, n_routed_experts: 8, num_experts_per_tok: 3 };

const moe = (raw: object) => readConfig(raw).moe;
const sparse = (raw: object) => [0, 1, 2, 3].filter((layer) => moe(raw)?.sparse(layer));

test("both spellings of the number of experts are one model", () => {
  const { num_experts, ...others } = QWEN;
  expect(moe({ ...others, num_local_experts: num_experts })?.routing).toEqual(moe(QWEN)?.routing);
  expect(moe({ ...QWEN, num_local_experts: 6 })?.routing.experts).toBe(6);
});

test.each<[string, object, string]>([
  ["two numbers that disagree", { ...QWEN, num_local_experts: 5 }, "num_local_experts is 5, expected 6 as num_experts"],
  ["more a token than there are", { ...QWEN, num_experts_per_tok: 7 }, "num_experts_per_tok is 7, expected at most"],
  ["no expert a token", { ...QWEN, num_experts_per_tok: 0 }, "num_experts_per_tok is 0"],
  ["groups that do not divide", { ...GLM, n_group: 3 }, "n_group is 3, expected a divisor of the number of experts, 8"],
  ["more groups than there are", { ...GLM, n_group: 2, topk_group: 3 }, "topk_group is 3, expected at most n_group, 2"],
  ["groups with too few experts", { ...GLM, n_group: 4, topk_group: 1 }, "expected at most 2, the experts of 1 groups"],
  ["a layer that is none", { ...QWEN, mlp_only_layers: ["a"] }, "mlp_only_layers"],
])("%s is refused by name", (_, raw, message) => {
  expect(() => readConfig(raw)).toThrow(ModelFormatError);
  expect(() => readConfig(raw)).toThrow(message);
});

test("which layers have experts is each family's rule", () => {
  expect(sparse(QWEN)).toEqual([0, 1, 2, 3]);
  expect(sparse({ ...QWEN, decoder_sparse_step: 2 })).toEqual([1, 3]);
  expect(sparse({ ...QWEN, mlp_only_layers: [0, 3] })).toEqual([1, 2]);
  expect(sparse({ ...GLM, first_k_dense_replace: 3 })).toEqual([3]);
  const ernie = { ...QWEN, model_type: "ernie4_5_moe", moe_layer_start_index: 1, moe_layer_interval: 2 };
  expect(sparse(ernie)).toEqual([1, 3]);
  expect(sparse({ ...ernie, moe_layer_end_index: 2 })).toEqual([1]);
});

test("shared experts are one wider MLP, or none", () => {
  expect(moe({ ...GLM, n_shared_experts: 2, moe_intermediate_size: 24 })?.shared).toEqual({ inner: 48, gated: false });
  expect(moe({ ...GLM, n_shared_experts: 0 })?.shared).toBeNull();
});
