import { describe, expect, test } from "vitest";
import { OnnxGraph } from "./onnxGraph.ts";
import { Message } from "./protobuf.ts";
import { dequantized, randomLlama, SMOLLM2_135M, wideScales } from "./randomLlama.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("protocol buffers", () => {
  test("have the bytes of the encoding's own examples", () => {
    expect(hex(new Message().integer(1, 150).finish())).toBe("089601");
    expect(hex(new Message().text(2, "testing").finish())).toBe("120774657374696e67");
    expect(hex(new Message().message(3, new Message().integer(1, 150)).finish())).toBe("1a03089601");
  });

  test("take integers past 32 bits, and floats as four bytes", () => {
    expect(hex(new Message().integer(1, 2 ** 40).finish())).toBe("08808080808020");
    expect(hex(new Message().float(2, 1).finish())).toBe("150000803f");
  });
});

test("an ONNX model has its two sets of operators, its node and its constant", () => {
  const graph = new OnnxGraph();
  const x = graph.input("x", "float", ["n", 2]);
  const c = graph.constant("c", "float", [2], Float32Array.of(1, 2));
  graph.node("Add", [x, c], ["y"]);
  graph.output("y", "float", ["n", 2]);
  const text = Buffer.from(graph.finish()).toString("latin1");
  for (const word of ["com.microsoft", "y/Add", "Add", "\u0000\u0000\u0080?\u0000\u0000\u0000@"])
    expect(text).toContain(word);
});

test("the random model has codes of 8 on average, and weights of both signs", () => {
  const { matrices } = randomLlama({ ...SMOLLM2_135M, layers: 1, vocab: 64 }, 1);
  const weight = matrices.get("model.layers.0.mlp.up_proj");
  if (weight === undefined) throw new RangeError("no up_proj");
  const values = dequantized(weight);
  const spread = 1 / Math.sqrt(576);
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const square = values.reduce((sum, v) => sum + v * v, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(spread / 100);
  expect(Math.sqrt(square) / spread).toBeGreaterThan(0.7);
  expect(Math.sqrt(square) / spread).toBeLessThan(1.3);
  const word = weight.words[0] ?? 0;
  expect(values[7]).toBeCloseTo((wideScales(weight)[0] ?? 0) * ((word >>> 28) - 8), 12);
});
