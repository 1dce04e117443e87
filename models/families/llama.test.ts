/** The Llama family: what it takes from a checkpoint, in every form that one has. */
import { describe, expect, test } from "vitest";
import { type TinyShape, tinyFolder, tinyModel } from "../../test/tinyModel.ts";
import { WeightPlan } from "../weightPlan.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { llama } from "./llama.ts";
import { familyOf, readConfig } from "./registry.ts";

async function build(shape: TinyShape) {
  const { config: raw, tensors } = tinyModel(shape);
  const config = readConfig(raw);
  const checkpoint = await openCheckpoint(tinyFolder({ config: raw, tensors }));
  const weights = new WeightPlan(checkpoint, config.quantization);
  return { weights, model: llama.build(weights, config), config };
}

describe("llama", () => {
  test.each([
    {},
    { tied: true },
    { bias: true },
    { layout: "affine4" },
    { layout: "affine8", tied: true, scales: "F32" },
    { layout: "bf16", kvHeads: 1, headDim: 80 },
  ] satisfies TinyShape[])("claims every tensor of %j once", async (shape) => {
    const { weights } = await build(shape);
    expect(() => weights.finish()).not.toThrow();
    expect(weights.matrices).toHaveLength(1 + 2 * 4 + ("tied" in shape && shape.tied ? 0 : 1));
    // Two norms a layer and one behind, each in a place of its own.
    const places = weights.vectors.flatMap(({ tensor, at }) =>
      Array.from({ length: tensor.shape[0] ?? 0 }, (_, i) => at(i)),
    );
    expect(new Set(places).size).toBe(places.length);
    expect(Math.max(...places)).toBeLessThan(weights.auxLength);
  });

  test("wants pages for each layer, of its KV heads and head size", async () => {
    const { model } = await build({ layers: 3, heads: 4, kvHeads: 1, headDim: 40 });
    expect(model.caches).toEqual(Array(3).fill({ kind: "pages", kvHeads: 1, headDim: 40, window: null }));
  });

  test("is registered by its model_type, and others are refused with a list", () => {
    expect(familyOf("llama")).toBe(llama);
    expect(() => familyOf("toString")).toThrow('model_type is "toString", expected one of: ');
  });
});
