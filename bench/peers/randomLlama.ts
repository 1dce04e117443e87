/** A Llama of random 4-bit weights in groups of 32: the same numbers for every engine that it is given to. */
import { f16Bits, f16FromBits } from "../../kernels/formats/halves.ts";
import { Random } from "../../kernels/testbed.ts";

/** Sizes of the model. */
export interface LlamaShape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocab: number;
  readonly context: number;
  readonly theta: number;
  readonly eps: number;
}

/** SmolLM2-135M's. */
export const SMOLLM2_135M: LlamaShape = {
  layers: 30,
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  intermediate: 1536,
  vocab: 49_152,
  context: 1024,
  theta: 100_000,
  eps: 1e-5,
};

/** Columns of a scale. */
export const GROUP = 32;

/** w[n, k] = scale[n, k / 32] · (code[n, k] − 8). */
export interface RandomWeight {
  readonly rows: number;
  readonly cols: number;
  /** (rows, cols / 8): column k of eight in bits 4 k. As bytes, ONNX Runtime's order too. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** (rows, cols / 32): halves, which both engines hold exactly. */
  readonly scales: Uint16Array<ArrayBuffer>;
}

/** Matrices by the hub's names without ".weight", and norms. */
export interface RandomLlama {
  readonly shape: LlamaShape;
  readonly matrices: ReadonlyMap<string, RandomWeight>;
  readonly norms: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
}

/** The model of a seed. Weights are of about 1/√cols, so that nothing drowns in the residual stream. */
export function randomLlama(shape: LlamaShape, seed: number): RandomLlama {
  const random = new Random(seed);
  const matrices = new Map<string, RandomWeight>();
  const norms = new Map<string, Float32Array<ArrayBuffer>>();
  const matrix = (name: string, rows: number, cols: number) => {
    const words = Uint32Array.from({ length: (rows * cols) / 8 }, () => centred(random.next() * 2 ** 32));
    const spread = 1 / (4.6 * Math.sqrt(cols)); // 4.6: the deviation of codes from 0 to 15
    const scales = Uint16Array.from({ length: (rows * cols) / GROUP }, () => f16Bits(spread * (0.5 + random.next())));
    matrices.set(name, { rows, cols, words, scales });
  };
  const norm = (name: string) => {
    norms.set(
      name,
      Float32Array.from({ length: shape.hidden }, () => 0.5 + random.next()),
    );
  };
  const { hidden, heads, kvHeads, headDim, intermediate } = shape;
  matrix("model.embed_tokens", shape.vocab, hidden);
  for (let i = 0; i < shape.layers; i++) {
    const layer = `model.layers.${i}`;
    norm(`${layer}.input_layernorm.weight`);
    matrix(`${layer}.self_attn.q_proj`, heads * headDim, hidden);
    matrix(`${layer}.self_attn.k_proj`, kvHeads * headDim, hidden);
    matrix(`${layer}.self_attn.v_proj`, kvHeads * headDim, hidden);
    matrix(`${layer}.self_attn.o_proj`, hidden, heads * headDim);
    norm(`${layer}.post_attention_layernorm.weight`);
    matrix(`${layer}.mlp.gate_proj`, intermediate, hidden);
    matrix(`${layer}.mlp.up_proj`, intermediate, hidden);
    matrix(`${layer}.mlp.down_proj`, hidden, intermediate);
  }
  norm("model.norm.weight");
  return { shape, matrices, norms };
}

/** Codes of 0 as 8: then a code is 8 on average, and the mean of the weights does not grow from layer to layer. */
function centred(word: number): number {
  const zeros = ~(word | (word >>> 1) | (word >>> 2) | (word >>> 3)) & 0x1111_1111;
  return (word | (zeros << 3)) >>> 0;
}

/** Scales as f32. */
export function wideScales({ scales }: RandomWeight): Float32Array<ArrayBuffer> {
  return Float32Array.from(scales, (bits) => f16FromBits(bits));
}

/** The matrix in f32, (rows, cols). */
export function dequantized(weight: RandomWeight): Float32Array<ArrayBuffer> {
  const scales = wideScales(weight);
  return new Float32Array(weight.rows * weight.cols).map((_, i) => {
    const code = ((weight.words[i >>> 3] ?? 0) >>> (4 * (i & 7))) & 15;
    return (scales[Math.floor(i / GROUP)] ?? Number.NaN) * (code - 8);
  });
}
