/** Random Llama checkpoints of any shape, in memory: what tests load where no trained model is needed. */
import type { Folder } from "../device/files.ts";
import { memoryFolder } from "../device/memoryFiles.ts";
import { bf16Bits, f16Bits } from "../kernels/formats/halves.ts";
import { Random } from "../kernels/testbed.ts";
import { safetensorsFile, type WrittenTensor } from "../models/weights/writeSafetensors.ts";

/** A tensor of a checkpoint in memory. */
export type TinyTensor = WrittenTensor;

/** What a tiny model is; unset: a small one that every kernel path of a plain checkpoint runs on. */
export interface TinyShape {
  readonly seed?: number;
  readonly layers?: number;
  readonly hidden?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly headDim?: number;
  readonly intermediate?: number;
  readonly vocab?: number;
  readonly context?: number;
  readonly tied?: boolean;
  readonly bias?: boolean;
  readonly layout?: "f32" | "f16" | "bf16" | `affine${2 | 3 | 4 | 5 | 6 | 8}`;
  /** Of affine layouts; divides hidden, heads · headDim and intermediate. */
  readonly group?: 32 | 64 | 128;
  readonly scales?: "F32" | "F16" | "BF16";
  /** More fields of config.json, or other values of these. */
  readonly config?: Readonly<Record<string, unknown>>;
}

const DEFAULTS = {
  seed: 1,
  layers: 2,
  hidden: 64,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  intermediate: 96,
  vocab: 97,
  context: 1024,
  tied: false,
  bias: false,
  layout: "f32",
  group: 32,
  scales: "F16",
} as const satisfies Required<Omit<TinyShape, "config">>;

/** What a random checkpoint is made of. */
export interface TinyModel {
  readonly config: Record<string, unknown>;
  readonly tensors: Map<string, TinyTensor>;
}

/** The checkpoint of a shape: the same one for the same seed. A test may change either part before `tinyFolder`. */
export function tinyModel(given: TinyShape = {}): TinyModel {
  const shape = { ...DEFAULTS, ...given };
  const { hidden, heads, kvHeads, headDim, intermediate, vocab, layers, tied, bias, layout } = shape;
  const random = new Random(shape.seed);
  const tensors = new Map<string, TinyTensor>();
  const plain = layout === "f16" ? "F16" : layout === "bf16" ? "BF16" : "F32";
  const project = (module: string, rows: number, cols: number, hasBias = false) => {
    // Of this size, attention is far from uniform and no layer drowns in the residual stream.
    const spread = 3 / Math.sqrt(cols);
    if (layout.startsWith("affine")) affine(tensors, module, rows, cols, spread, shape, random);
    else tensors.set(`${module}.weight`, floats(random.floats(rows * cols, spread), plain, [rows, cols]));
    if (hasBias) tensors.set(`${module}.bias`, floats(random.floats(rows, 1), plain, [rows]));
  };
  const norm = (name: string) =>
    tensors.set(
      name,
      floats(
        random.floats(hidden, 0.5).map((v) => 1 + v),
        plain,
        [hidden],
      ),
    );
  project("model.embed_tokens", vocab, hidden);
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`;
    norm(`${layer}.input_layernorm.weight`);
    project(`${layer}.self_attn.q_proj`, heads * headDim, hidden, bias);
    project(`${layer}.self_attn.k_proj`, kvHeads * headDim, hidden, bias);
    project(`${layer}.self_attn.v_proj`, kvHeads * headDim, hidden, bias);
    project(`${layer}.self_attn.o_proj`, hidden, heads * headDim, bias);
    norm(`${layer}.post_attention_layernorm.weight`);
    project(`${layer}.mlp.gate_proj`, intermediate, hidden, bias);
    project(`${layer}.mlp.up_proj`, intermediate, hidden, bias);
    project(`${layer}.mlp.down_proj`, hidden, intermediate, bias);
  }
  norm("model.norm.weight");
  if (!tied) project("lm_head", vocab, hidden);
  return { config: configOf(shape), tensors };
}

function configOf(shape: Required<Omit<TinyShape, "config">> & TinyShape): Record<string, unknown> {
  const bits = bitsOf(shape.layout);
  return {
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    vocab_size: shape.vocab,
    max_position_embeddings: shape.context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: shape.tied,
    attention_bias: shape.bias,
    mlp_bias: shape.bias,
    ...(shape.layout.startsWith("affine") ? { quantization: { group_size: shape.group, bits } } : {}),
    ...shape.config,
  };
}

/** Bits of a code of an affine layout. */
export const bitsOf = (layout: string): number => Number(layout.replace(/\D/g, ""));

/** As MLX writes it: w = scale · q + bias by group, codes of a row from the low bits of its words up. */
function affine(
  tensors: Map<string, TinyTensor>,
  module: string,
  rows: number,
  cols: number,
  spread: number,
  { layout, group, scales }: Pick<Required<TinyShape>, "layout" | "group" | "scales">,
  random: Random,
): void {
  const bits = bitsOf(layout);
  const words = Uint32Array.from({ length: (rows * cols * bits) / 32 }, () => random.below(2 ** 32));
  const step = Float32Array.from({ length: (rows * cols) / group }, () => (spread * (1 + random.next())) / 2 ** bits);
  const groups = [rows, cols / group];
  tensors.set(`${module}.weight`, { dtype: "U32", shape: [rows, (cols * bits) / 32], bytes: bytesOf(words) });
  tensors.set(`${module}.scales`, floats(step, scales, groups));
  tensors.set(
    `${module}.biases`,
    floats(
      step.map((s) => -s * 2 ** (bits - 1) * (0.9 + 0.2 * random.next())),
      scales,
      groups,
    ),
  );
}

const bytesOf = (data: Float32Array | Uint32Array | Uint16Array) =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Values as a tensor of a plain dtype. */
export function floats(values: Float32Array, dtype: "F32" | "F16" | "BF16", shape: readonly number[]): TinyTensor {
  if (dtype === "F32") return { dtype, shape, bytes: bytesOf(values) };
  return { dtype, shape, bytes: bytesOf(Uint16Array.from(values, dtype === "F16" ? f16Bits : bf16Bits)) };
}

/** A folder as on the hub; `files` are added to it or take the place of its own. */
export function tinyFolder(
  { config, tensors }: TinyModel,
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Folder {
  return memoryFolder({
    "config.json": JSON.stringify(config),
    "model.safetensors": safetensorsFile(tensors),
    ...files,
  });
}

/** Ids below `vocab`, the same ones for the same seed. */
export function randomTokens(seed: number, count: number, vocab: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.below(vocab));
}
