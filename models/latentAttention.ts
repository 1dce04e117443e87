/** Latent attention (MLA) as a block: the cache holds one latent and one rotated key a token, and queries are taken to their length. */
import { type Mixer, output } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import type { LatentConfig } from "./latentConfig.ts";
import type { Matrix } from "./matrix.ts";
import type { CacheDeclaration } from "./model.ts";
import { attendLatent, type LatentSpec } from "./ops/attendLatent.ts";
import { project } from "./ops/project.ts";
import type { Projection } from "./projection.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** Of the norms of latents: their class's own, whatever the config says of the others. */
const EPS = 1e-6;

/** What a layer of latent attention keeps: one vector a token, whose beginning is also its value. */
const latentCache = ({ kv_lora_rank, qk_rope_head_dim }: LatentConfig, window: number | null): CacheDeclaration => ({
  kind: "pages",
  kvHeads: 1,
  headDim: kv_lora_rank + qk_rope_head_dim,
  valueDim: 0,
  window,
});

/**
 * Self-attention over latents. 6 dispatches with its way back, 7 where queries are of low rank; one more where the latent is not whole
 * runs of 32.
 */
export function latentAttention(
  weights: WeightPlan,
  path: string,
  layer: number,
  config: ModelConfig,
  latent: LatentConfig,
): Mixer {
  const { hidden_size, num_attention_heads: heads, biases } = config;
  const {
    q_lora_rank,
    kv_lora_rank,
    qk_nope_head_dim: nope,
    qk_rope_head_dim: rotaryDim,
    v_head_dim: valueDim,
  } = latent;
  const queries = heads * (nope + rotaryDim);
  const first: readonly Projection[] = [
    q_lora_rank === null
      ? { module: `${path}.q_proj`, rows: queries, bias: null }
      : { module: `${path}.q_a_proj`, rows: q_lora_rank },
    { module: `${path}.kv_a_proj_with_mqa`, rows: kv_lora_rank + rotaryDim },
  ];
  const matrices = weights.stacked(first, hidden_size);
  const bias = weights.stackedBias(first, biases.qkv);
  const low =
    q_lora_rank === null
      ? null
      : {
          norm: weights.vector(`${path}.q_a_layernorm.weight`, q_lora_rank),
          matrices: weights.stacked([{ module: `${path}.q_b_proj`, rows: queries }], q_lora_rank),
          rank: q_lora_rank,
        };
  const spec: LatentSpec = {
    layer,
    heads,
    latent: kv_lora_rank,
    nope,
    valueDim,
    rope: config.layerRopes[layer] ?? 0,
    rotaryDim,
    interleaved: latent.interleaved,
    scale: config.attentionScale,
    eps: EPS,
    kvNorm: weights.vector(`${path}.kv_a_layernorm.weight`, kv_lora_rank),
    low,
    ...keysAndValues(weights, path, heads, latent),
  };
  return {
    cache: latentCache(latent, config.windows[layer] ?? null),
    inner: (step, x) => attendLatent(step, project(step, matrices, x, { bias, label: "kv_a_proj" }), spec),
    output: output(weights, { module: `${path}.o_proj` }, config, heads * valueDim, biases.o),
  };
}

/** Keys and values as two matrices by head: the rows that each head has in one module, or MLX's two modules, the keys' (heads, latent, nope). */
function keysAndValues(
  weights: WeightPlan,
  path: string,
  heads: number,
  { qk_nope_head_dim: nope, v_head_dim: value, kv_lora_rank }: LatentConfig,
): { readonly keys: Matrix; readonly values: Matrix } {
  const [embed_q, unembed_out] = [`${path}.embed_q`, `${path}.unembed_out`];
  if (weights.has(`${embed_q}.weight`)) {
    const one = (index: number) => ({ expert: { index, of: heads } });
    const key = (head: number) => ({ module: embed_q, rows: nope, transposed: "quantized too", ...one(head) }) as const;
    const out = (head: number) => ({ module: unembed_out, rows: value, ...one(head) });
    return {
      keys: weights.byHead(embed_q, heads, key, nope, kv_lora_rank),
      values: weights.byHead(unembed_out, heads, out, value, kv_lora_rank),
    };
  }
  const module = `${path}.kv_b_proj`;
  const rows = (count: number, from: number) => (head: number) => {
    const first = head * (nope + value) + from;
    return { module, rows: count, slice: { first, of: heads * (nope + value) } };
  };
  return {
    keys: weights.byHead(`${module}, keys`, heads, rows(nope, 0), nope, kv_lora_rank),
    values: weights.byHead(`${module}, values`, heads, rows(value, nope), value, kv_lora_rank),
  };
}
