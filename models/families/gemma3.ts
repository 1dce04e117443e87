/**
 * Gemma 3 with an image encoder: its text model alone. What is for images is not loaded.
 *
 * 7 L + 3 dispatches; one more for a cap on the logits.
 * Source: transformers, models/gemma3/modeling_gemma3.py.
 */
import type { Family } from "../model.ts";
import { GEMMA3_RULES, gemma3Decoder } from "./gemma3_text.ts";

const UNUSED = /^(model\.)?(vision_tower|multi_modal_projector)\./;

/** Gemma 3 4B and larger. */
export const gemma3: Family = {
  config: { ...GEMMA3_RULES, within: "text_config", architecture: "Gemma3ForConditionalGeneration" },
  build(weights, config) {
    // The hub's names, and those of transformers since 4.52.
    const older = weights.hasUnder("language_model.model.");
    const model = older ? "language_model.model" : "model.language_model";
    const lm_head = older ? "language_model.lm_head" : "lm_head";
    return gemma3Decoder(weights, config, { model, lm_head, unused: UNUSED });
  },
};
