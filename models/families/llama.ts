/**
 * Llama: pre-norm decoder with rope, grouped-query attention and a gated MLP. Also SmolLM2 and TinyLlama.
 *
 * 5 dispatches a layer and 2 around them; the sampler makes 5 L + 3.
 * Source: transformers, models/llama/modeling_llama.py.
 */
import { attention, gatedMlp } from "../blocks.ts";
import type { Family } from "../model.ts";
import { embedTokens } from "../ops/embedTokens.ts";
import { pick } from "../ops/pick.ts";
import { project } from "../ops/project.ts";

export const llama: Family = (weights, config) => {
  const { hidden_size, vocab_size, num_hidden_layers, rms_norm_eps, tie_word_embeddings } = config;
  const embed_tokens = weights.matrix("model.embed_tokens", vocab_size, hidden_size);
  const layers = Array.from({ length: num_hidden_layers }, (_, i) => ({
    input_layernorm: weights.vector(`model.layers.${i}.input_layernorm.weight`, hidden_size),
    self_attn: attention(weights, `model.layers.${i}.self_attn`, i, config),
    post_attention_layernorm: weights.vector(`model.layers.${i}.post_attention_layernorm.weight`, hidden_size),
    mlp: gatedMlp(weights, `model.layers.${i}.mlp`, config),
  }));
  const norm = weights.vector("model.norm.weight", hidden_size);
  const lm_head = tie_word_embeddings ? embed_tokens : weights.matrix("lm_head", vocab_size, hidden_size);
  const { num_key_value_heads: kvHeads, head_dim: headDim } = config;

  return {
    caches: layers.map((_, i) => ({ kind: "pages", kvHeads, headDim, window: config.windows[i] ?? null })),
    forward(step) {
      const { recorder } = step;
      let x = embedTokens(step, embed_tokens, layers[0]?.input_layernorm ?? norm);
      layers.forEach(({ self_attn, post_attention_layernorm, mlp }, i) => {
        recorder.label = `layers.${i}`;
        x = self_attn(step, x, post_attention_layernorm);
        x = mlp(step, x, layers[i + 1]?.input_layernorm ?? norm);
      });
      recorder.label = "";
      if (step.samples === 0) return undefined;
      return project(step, [lm_head], pick(step, x.z), { eps: rms_norm_eps, label: "lm_head" });
    },
  };
};
