import { describe, expect, test } from "vitest";
import { memorySource } from "../../device/memoryFiles.ts";
import type { CheckpointTensor } from "./checkpoint.ts";
import { isKnownExtra, KNOWN_EXTRAS, TensorClaims } from "./claims.ts";

const source = memorySource(new Uint8Array(0), "model.safetensors");

function claims(...names: string[]): TensorClaims {
  const tensor = (name: string): CheckpointTensor => ({ name, dtype: "F32", shape: [0], begin: 8, end: 8, source });
  return new TensorClaims({ location: "my-model", tensors: new Map(names.map((name) => [name, tensor(name)])) });
}

test("a checkpoint whose tensors are all claimed is whole", () => {
  const all = claims("a", "b");
  expect(all.claim("a")?.name).toBe("a");
  expect(all.claimIfThere("b")?.name).toBe("b");
  expect(all.claimIfThere("c")).toBeUndefined();
  expect(all.has("a")).toBe(true);
  all.finish();
});

test("what is missing and what is left over are named together", () => {
  const some = claims("model.up_projj.weight", "a");
  some.claim("a");
  expect(some.claim("model.up_proj.weight")).toBeUndefined();
  expect(() => some.finish()).toThrow(
    expect.objectContaining({
      code: "MISSING_TENSOR",
      tensor: "model.up_proj.weight",
      message:
        "my-model: lacks 1 tensor: model.up_proj.weight, and holds 1 tensor that the model does not know: model.up_projj.weight; does config.json belong to these weights?",
    }),
  );
});

test("a left-over tensor alone is an error that names it, escaped", () => {
  expect(() => claims("zz_proj\u001b[2J.weight").finish()).toThrow(
    expect.objectContaining({ code: "UNKNOWN_TENSOR", message: expect.stringContaining("zz_proj\\u{1b}[2J.weight") }),
  );
});

test("long lists show eight names and a count", () => {
  const many = claims();
  for (let i = 0; i < 100; i++) many.claim(`layers.${i}`);
  expect(() => many.finish()).toThrow(/lacks 100 tensors: layers\.0, .*layers\.7 and 92 more; does/);
});

test("nothing is claimed twice", () => {
  const one = claims("a");
  one.claim("a");
  expect(() => one.claim("a")).toThrow("a is claimed twice");
  expect(() => one.claimIfThere("a")).toThrow(RangeError);
});

test("the caller can let names pass", () => {
  const one = claims("model.layers.61.eh_proj.weight", "x");
  expect(() => one.finish((name) => name.startsWith("model.layers.61."))).toThrow(
    expect.objectContaining({ tensor: "x" }),
  );
  expect(one.leftOver()).toEqual(["model.layers.61.eh_proj.weight", "x"]);
});

describe("known extras", () => {
  test.each([
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "rotary_emb.inv_freq",
    "gpt_neox.layers.3.attention.rotary_emb.inv_freq",
    "embeddings.position_ids",
    "mtp.layers.0.mlp.up_proj.weight",
  ])("%s is passed over", (name) => {
    expect(isKnownExtra(name)).toBe(true);
    claims(name).finish();
  });

  test.each([
    "model.layers.0.self_attn.q_proj.bias",
    "h.0.attn.bias",
    "gpt_neox.layers.0.attention.masked_bias",
    "h.0.attn.c_attn.bias",
    "gpt_neox.layers.0.attention.dense.bias",
    "gpt_neox.layers.0.attention.query_key_value.bias",
    "model.layers.0.mtp.weight",
    "xrotary_emb.inv_freq",
    "rotary_emb.inv_freq.weight",
    "lm_head.weight",
  ])("%s is not", (name) => expect(isKnownExtra(name)).toBe(false));

  test("each has a reason, and one that is needed can still be claimed", () => {
    for (const { reason } of KNOWN_EXTRAS) expect(reason).not.toBe("");
    expect(claims("x.position_ids").claim("x.position_ids")?.name).toBe("x.position_ids");
  });
});
