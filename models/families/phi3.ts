/**
 * Phi-3 and Phi-4: Llama with q, k and v in one projection, gate and up in another, and long rope. 5 L + 3 dispatches.
 *
 * Source: transformers, models/phi3/modeling_phi3.py.
 */
import { columnsInARow } from "../blocks.ts";
import { LLAMA_RULES, NO_BIASES } from "../configRules.ts";
import type { Family } from "../model.ts";
import { preNormDecoder } from "../preNormDecoder.ts";

/** Phi-3, Phi-3.5 and Phi-4. */
export const phi3: Family = {
  config: {
    ...LLAMA_RULES,
    max_position_embeddings: 4096,
    norm: { key: "rms_norm_eps", eps: 1e-5 },
    eosTokenIds: [32_000],
    window: { kind: "every layer", otherwise: null },
    biases: NO_BIASES,
    rope: {
      theta: 10_000,
      partial: 1,
      originalLength: 4096,
      types: ["default", "longrope"],
      oldTypes: { yarn: "longrope" }, // as the first uploads called it
    },
  },
  build: (weights, config) =>
    preNormDecoder(weights, config, {
      attention: (self_attn) => ({
        fused: { projection: { module: `${self_attn}.qkv_proj` }, columns: columnsInARow(config) },
      }),
      mlp: (mlp) => ({ fused: `${mlp}.gate_up_proj` }),
    }),
};
