/**
 * The random Llama as an ONNX model, of the operators that ONNX Runtime's own exporters use for WebGPU: MatMulNBits,
 * GroupQueryAttention with rotary embedding, SimplifiedLayerNormalization with the residual stream in it.
 *
 * Keys and values of the past come in and those of past and new tokens go out, as in every exported decoder; what stays on the GPU is
 * the caller's to say. Logits are made of the last token alone, and only the best token's id comes back, as ingle does it.
 */
import { OnnxGraph } from "./onnxGraph.ts";
import { dequantized, GROUP, type RandomLlama, wideScales } from "./randomLlama.ts";

/** How exact products are: 0 for f32, 4 for activations in 8 bits, where the provider has it. */
export type AccuracyLevel = 0 | 4;

/** The bytes of the model. Inputs: ids, seqlens_k, total, past.i.k, past.i.v; outputs: token, present.i.k, present.i.v. */
export function llamaOnnx(model: RandomLlama, accuracy: AccuracyLevel): Uint8Array {
  const graph = new OnnxGraph();
  const { layers, hidden, heads, kvHeads, headDim, intermediate, vocab, context, eps } = model.shape;
  const cache = (places: string) => ["batch", kvHeads, places, headDim] as const;
  graph.input("ids", "int64", ["batch", "tokens"]);
  graph.input("seqlens_k", "int32", ["batch"]);
  graph.input("total", "int32", []);
  const { cosines, sines } = ropeTables(model);
  graph.constant("cos", "float", [context, headDim / 2], cosines);
  graph.constant("sin", "float", [context, headDim / 2], sines);
  const norm = (name: string, rows: number) => graph.constant(name, "float", [rows], found(model.norms, name));
  const matmul = (name: string, x: string, rows: number, cols: number, out: string) => {
    const weight = found(model.matrices, name);
    const { words } = weight;
    const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    const codes = graph.constant(`${name}.codes`, "uint8", [rows, cols / GROUP, GROUP / 2], bytes);
    const scales = graph.constant(`${name}.scales`, "float", [rows * (cols / GROUP)], wideScales(weight));
    const attributes = { K: cols, N: rows, bits: 4, block_size: GROUP, accuracy_level: accuracy };
    return graph.contrib("MatMulNBits", [x, codes, scales], [out], attributes);
  };

  const table = graph.constant(
    "embedding",
    "float",
    [vocab, hidden],
    dequantized(found(model.matrices, "model.embed_tokens")),
  );
  let y = graph.node("Gather", [table, "ids"], ["embedded"]);
  let x = graph.node(
    "SimplifiedLayerNormalization",
    [y, norm("model.layers.0.input_layernorm.weight", hidden)],
    ["normed"],
    { axis: 2, epsilon: { float: eps }, stash_type: 1 },
  );
  /** y + added, and its norm. */
  const addAndNorm = (added: string, name: string, prefix: string): void => {
    const outputs = [`${prefix}.normed`, "", "", `${prefix}.stream`];
    x = graph.contrib("SkipSimplifiedLayerNormalization", [y, added, norm(name, hidden)], outputs, {
      epsilon: { float: eps },
    });
    y = `${prefix}.stream`;
  };
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`;
    const [q, k, v] = [
      matmul(`${layer}.self_attn.q_proj`, x, heads * headDim, hidden, `${i}.q`),
      matmul(`${layer}.self_attn.k_proj`, x, kvHeads * headDim, hidden, `${i}.k`),
      matmul(`${layer}.self_attn.v_proj`, x, kvHeads * headDim, hidden, `${i}.v`),
    ];
    const past = ["k", "v"].map((it) => graph.input(`past.${i}.${it}`, "float", cache("past")));
    const present = [`present.${i}.k`, `present.${i}.v`];
    for (const name of present) graph.output(name, "float", cache("present"));
    const attended = graph.contrib(
      "GroupQueryAttention",
      [q, k, v, ...past, "seqlens_k", "total", "cos", "sin"],
      [`${i}.attended`, ...present],
      { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1, scale: { float: 1 / Math.sqrt(headDim) } },
    );
    const o = matmul(`${layer}.self_attn.o_proj`, attended, hidden, heads * headDim, `${i}.o`);
    addAndNorm(o, `${layer}.post_attention_layernorm.weight`, `${i}.middle`);
    const gate = matmul(`${layer}.mlp.gate_proj`, x, intermediate, hidden, `${i}.gate`);
    const up = matmul(`${layer}.mlp.up_proj`, x, intermediate, hidden, `${i}.up`);
    const silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], [`${i}.sigmoid`])], [`${i}.silu`]);
    const inner = graph.node("Mul", [silu, up], [`${i}.inner`]);
    const down = matmul(`${layer}.mlp.down_proj`, inner, hidden, intermediate, `${i}.down`);
    addAndNorm(down, i + 1 < layers ? `model.layers.${i + 1}.input_layernorm.weight` : "model.norm.weight", `${i}.end`);
  }
  const last = graph.constant("last", "int64", [1], BigInt64Array.of(-1n));
  const end = graph.constant("end", "int64", [1], BigInt64Array.of(2n ** 62n));
  const axis = graph.constant("axis", "int64", [1], BigInt64Array.of(1n));
  const only = graph.node("Slice", [x, last, end, axis], ["only"]);
  const logits = matmul("model.embed_tokens", only, vocab, hidden, "logits");
  graph.node("ArgMax", [logits], ["token"], { axis: 2, keepdims: 0 });
  graph.output("token", "int64", ["batch", 1]);
  return graph.finish();
}

/** (context, head_dim / 2) each. */
function ropeTables({ shape: { context, headDim, theta } }: RandomLlama) {
  const half = headDim / 2;
  const angles = Float64Array.from({ length: context * half }, (_, i) => {
    return Math.floor(i / half) * theta ** (-(2 * (i % half)) / headDim);
  });
  return { cosines: Float32Array.from(angles, Math.cos), sines: Float32Array.from(angles, Math.sin) };
}

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined) throw new RangeError(`${name}: is not in the model`);
  return value;
}
