/** The random Llama as ingle loads it: config.json and safetensors as MLX quantizes, in memory. */
import type { Folder } from "../../device/files.ts";
import { memoryFolder } from "../../device/memoryFiles.ts";
import { f16Bits, f16FromBits } from "../../kernels/formats/halves.ts";
import { safetensorsFile, type WrittenTensor } from "../../models/weights/writeSafetensors.ts";
import { GROUP, type RandomLlama } from "./randomLlama.ts";

/** The folder. */
export function llamaFolder({ shape, matrices, norms }: RandomLlama): Folder {
  const tensors = new Map<string, WrittenTensor>();
  for (const [name, { rows, cols, words, scales }] of matrices) {
    tensors.set(`${name}.weight`, tensor("U32", [rows, cols / 8], words));
    const groups = [rows, cols / GROUP];
    tensors.set(`${name}.scales`, tensor("F16", groups, scales));
    const biases = scales.map((bits) => f16Bits(-8 * f16FromBits(bits))); // exact: a power of two
    tensors.set(`${name}.biases`, tensor("F16", groups, biases));
  }
  for (const [name, data] of norms) tensors.set(name, tensor("F32", [data.length], data));
  const config = {
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    max_position_embeddings: shape.context,
    rms_norm_eps: shape.eps,
    rope_theta: shape.theta,
    tie_word_embeddings: true,
    vocab_size: shape.vocab,
    quantization: { group_size: GROUP, bits: 4 },
  };
  const files = { "config.json": JSON.stringify(config), "model.safetensors": safetensorsFile(tensors) };
  return memoryFolder(files, "random weights");
}

const tensor = (
  dtype: WrittenTensor["dtype"],
  shape: readonly number[],
  { buffer, byteOffset, byteLength }: Uint32Array | Uint16Array | Float32Array,
): WrittenTensor => ({ dtype, shape, bytes: new Uint8Array(buffer, byteOffset, byteLength) });
