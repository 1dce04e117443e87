/**
 * DeepSeek-V3: attention over latents, experts by sigmoid and a correction of the choice, from the best groups, beside a shared one. 10 L + 3
 * dispatches; 9 in the first layers, and one less where queries are projected at once.
 *
 * Source: transformers, models/deepseek_v3/modeling_deepseek_v3.py.
 */
import { booleanField } from "../configChecks.ts";
import type { Family } from "../model.ts";
import { sigmoidMoe, sparseEvery } from "../moeConfig.ts";
import { checkRouting, DEEPSEEK_RULES, deepseek, latentExtras } from "./deepseek_v2.ts";

/** DeepSeek-V3, V3.1, R1 and others of their form, such as Moonlight. */
export const deepseek_v3: Family = {
  config: {
    ...DEEPSEEK_RULES,
    max_position_embeddings: 4096,
    bosTokenIds: [0],
    eosTokenIds: [1],
    extras(fields, shape) {
      checkRouting(fields, "sigmoid", ["noaux_tc"]);
      const otherwise = { inner: 2048, experts: 256, dense: 3, scaling: 2.5, groups: 8, bestGroups: 4 };
      return {
        ...latentExtras(fields, shape, booleanField(fields, "rope_interleave") ?? true),
        moe: { ...sigmoidMoe(fields, otherwise), sparse: sparseEvery(fields, otherwise.dense) },
      };
    },
  },
  build: deepseek,
};
