/** One random model with latent attention, its keys' and values' projections in three forms: MLX's quantized, MLX's plain, and DeepSeek's own. */
import { f16Bits, f16FromBits } from "../kernels/formats/halves.ts";
import { Random } from "../kernels/testbed.ts";
import { type Integers, toMlx } from "./packedIntegers.ts";
import { floats, type TinyModel, type TinyTensor } from "./tinyModel.ts";

const SIZES = { hidden: 64, heads: 2, nope: 32, rope: 16, value: 32, latent: 32, inner: 96, vocab: 256 } as const;
const { fround } = Math;

const config = {
  model_type: "deepseek_v3",
  hidden_size: SIZES.hidden,
  intermediate_size: SIZES.inner,
  num_hidden_layers: 1,
  num_attention_heads: SIZES.heads,
  vocab_size: SIZES.vocab,
  max_position_embeddings: 128,
  q_lora_rank: null,
  kv_lora_rank: SIZES.latent,
  qk_nope_head_dim: SIZES.nope,
  qk_rope_head_dim: SIZES.rope,
  v_head_dim: SIZES.value,
  first_k_dense_replace: 1,
};

/** Keys of each head as MLX quantizes them: (heads · latent, nope). */
function keysOf(random: Random): Integers {
  const { heads, latent, nope: cols } = SIZES;
  const rows = heads * latent;
  const draw = <T>(count: number, of: () => T) => Array.from({ length: count }, of);
  return {
    rows,
    cols,
    bits: 4,
    group: 32,
    codes: draw(rows * cols, () => random.below(16)),
    zeros: draw(rows, () => 8),
    scales: draw(rows, () => f16FromBits(f16Bits(0.02 + 0.05 * random.next()))),
    scaleType: "F16",
    g_idx: undefined,
  };
}

/** The same model three times. */
export function latentModels(): readonly [stacked: TinyModel, plain: TinyModel, joined: TinyModel] {
  const random = new Random(77);
  const { hidden, heads, nope, rope, value, latent, inner, vocab } = SIZES;
  const plain = (rows: number, cols: number) =>
    floats(random.floats(rows * cols, 2 / Math.sqrt(cols)), "F32", [rows, cols]);
  const norm = (count: number) =>
    floats(
      random.floats(count, 0.5).map((v) => 1 + v),
      "F32",
      [count],
    );
  const [layer, self_attn] = ["model.layers.0", "model.layers.0.self_attn"];
  const rest: [string, TinyTensor][] = [
    ["model.embed_tokens.weight", plain(vocab, hidden)],
    [`${layer}.input_layernorm.weight`, norm(hidden)],
    [`${self_attn}.q_proj.weight`, plain(heads * (nope + rope), hidden)],
    [`${self_attn}.kv_a_proj_with_mqa.weight`, plain(latent + rope, hidden)],
    [`${self_attn}.kv_a_layernorm.weight`, norm(latent)],
    [`${self_attn}.o_proj.weight`, plain(hidden, heads * value)],
    [`${layer}.post_attention_layernorm.weight`, norm(hidden)],
    [`${layer}.mlp.gate_proj.weight`, plain(inner, hidden)],
    [`${layer}.mlp.up_proj.weight`, plain(inner, hidden)],
    [`${layer}.mlp.down_proj.weight`, plain(hidden, inner)],
    ["model.norm.weight", norm(hidden)],
    ["lm_head.weight", plain(vocab, hidden)],
  ];
  const keys = keysOf(random);
  const values = random.floats(heads * value * latent, 0.3);
  const keyAt = (row: number, column: number) => {
    const scale = keys.scales[row] ?? Number.NaN;
    return fround(fround(scale * (keys.codes[row * nope + column] ?? Number.NaN)) - 8 * scale);
  };
  const turned = Float32Array.from({ length: heads * latent * nope }, (_, i) => keyAt(Math.floor(i / nope), i % nope));
  const each = nope + value;
  const joined = Float32Array.from({ length: heads * each * latent }, (_, i) => {
    const [row, column] = [Math.floor(i / latent), i % latent];
    const [head, within] = [Math.floor(row / each), row % each];
    if (within < nope) return keyAt(head * latent + column, within);
    return values[(head * value + within - nope) * latent + column] ?? Number.NaN;
  });
  const unembed: [string, TinyTensor] = [
    `${self_attn}.unembed_out.weight`,
    floats(values, "F32", [heads, value, latent]),
  ];
  const embed = (name: string) => `${self_attn}.embed_q.${name}`;
  const stacked = [...toMlx(keys)].map(([name, tensor]): [string, TinyTensor] => {
    return [embed(name), { ...tensor, shape: [heads, latent, ...tensor.shape.slice(1)] }];
  });
  const quantization = { bits: 4, group_size: 32 };
  return [
    { config: { ...config, quantization }, tensors: new Map([...rest, ...stacked, unembed]) },
    { config, tensors: new Map([...rest, [embed("weight"), floats(turned, "F32", [heads, latent, nope])], unembed]) },
    {
      config,
      tensors: new Map([...rest, [`${self_attn}.kv_b_proj.weight`, floats(joined, "F32", [heads * each, latent])]]),
    },
  ];
}
