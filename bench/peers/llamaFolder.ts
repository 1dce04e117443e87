/** The random Llama as ingle loads it: config.json and safetensors as MLX quantizes, in memory. */
import type { ByteSource, Folder } from "../../device/files.ts";
import { f16Bits, f16FromBits } from "../../kernels/formats/halves.ts";
import { GROUP, type RandomLlama } from "./randomLlama.ts";

interface Tensor {
  readonly dtype: "U32" | "F16" | "F32";
  readonly shape: readonly number[];
  readonly data: Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

/** The folder. */
export function llamaFolder({ shape, matrices, norms }: RandomLlama): Folder {
  const tensors = new Map<string, Tensor>();
  for (const [name, { rows, cols, words, scales }] of matrices) {
    tensors.set(`${name}.weight`, { dtype: "U32", shape: [rows, cols / 8], data: words });
    const groups = [rows, cols / GROUP];
    tensors.set(`${name}.scales`, { dtype: "F16", shape: groups, data: scales });
    const biases = scales.map((bits) => f16Bits(-8 * f16FromBits(bits))); // exact: a power of two
    tensors.set(`${name}.biases`, { dtype: "F16", shape: groups, data: biases });
  }
  for (const [name, data] of norms) tensors.set(name, { dtype: "F32", shape: [data.length], data });
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
  const files = new Map<string, Uint8Array>([
    ["config.json", new TextEncoder().encode(JSON.stringify(config))],
    ["model.safetensors", safetensors(tensors)],
  ]);
  return {
    location: "random weights",
    open: async (name) => {
      const bytes = files.get(name);
      return bytes === undefined ? undefined : source(name, bytes);
    },
  };
}

function source(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.length,
    read: async (begin, end) => bytes.slice(begin, end),
    close: async () => {},
  };
}

function safetensors(tensors: ReadonlyMap<string, Tensor>): Uint8Array {
  let size = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [size, size + data.byteLength] };
    size += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(8 + padded + size).fill(0x20, 8 + json.length, 8 + padded); // spaces, as the format pads
  new DataView(file.buffer).setBigUint64(0, BigInt(padded), true);
  file.set(json, 8);
  let at = 8 + padded;
  for (const { data } of tensors.values()) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}
