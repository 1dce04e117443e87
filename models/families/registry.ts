/** Families by the `model_type` of config.json. */
import { type ModelConfig, modelTypeOf, normalizeConfig } from "../config.ts";
import { UnsupportedModelError } from "../errors.ts";
import type { Family } from "../model.ts";
import { cohere } from "./cohere.ts";
import { deepseek_v2 } from "./deepseek_v2.ts";
import { deepseek_v3 } from "./deepseek_v3.ts";
import { ernie4_5 } from "./ernie4_5.ts";
import { ernie4_5_moe } from "./ernie4_5_moe.ts";
import { exaone4 } from "./exaone4.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3 } from "./gemma3.ts";
import { gemma3_text } from "./gemma3_text.ts";
import { glm4 } from "./glm4.ts";
import { glm4_moe } from "./glm4_moe.ts";
import { gpt_neox } from "./gpt_neox.ts";
import { gpt_oss } from "./gpt_oss.ts";
import { gpt2 } from "./gpt2.ts";
import { granite } from "./granite.ts";
import { granitemoe } from "./granitemoe.ts";
import { hunyuan_v1_dense } from "./hunyuan_v1_dense.ts";
import { lfm2 } from "./lfm2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { mixtral } from "./mixtral.ts";
import { nemotron } from "./nemotron.ts";
import { olmo2 } from "./olmo2.ts";
import { olmoe } from "./olmoe.ts";
import { phi } from "./phi.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen2_moe } from "./qwen2_moe.ts";
import { qwen3 } from "./qwen3.ts";
import { qwen3_moe } from "./qwen3_moe.ts";
import { qwen3_next } from "./qwen3_next.ts";
import { smollm3 } from "./smollm3.ts";
import { stablelm } from "./stablelm.ts";
import { starcoder2 } from "./starcoder2.ts";

const families: Readonly<Record<string, Family>> = {
  cohere,
  deepseek_v2,
  deepseek_v3,
  ernie4_5,
  ernie4_5_moe,
  exaone4,
  gemma,
  gemma2,
  gemma3,
  gemma3_text,
  glm4,
  glm4_moe,
  gpt2,
  gpt_neox,
  gpt_oss,
  granite,
  granitemoe,
  hunyuan_v1_dense,
  lfm2,
  llama,
  mistral,
  mixtral,
  nemotron,
  olmo2,
  olmoe,
  phi,
  phi3,
  qwen2,
  qwen2_moe,
  qwen3,
  qwen3_moe,
  qwen3_next,
  smollm3,
  stablelm,
  starcoder2,
};

/** The model types that there are, in alphabetical order. */
export const familyNames = (): string[] => Object.keys(families).sort();

/** The family of a model type. Throws UnsupportedModelError, which lists those there are. */
export function familyOf(modelType: string): Family {
  const family = Object.hasOwn(families, modelType) ? families[modelType] : undefined;
  if (family !== undefined) return family;
  const known = familyNames().join(", ");
  throw new UnsupportedModelError(
    `config.json: model_type is ${JSON.stringify(modelType)}, expected one of: ${known}; CONTRIBUTING.md says how to add a family`,
  );
}

/** The config of a checkpoint, from parsed JSON, as its family reads it. Throws as `familyOf` and `normalizeConfig` do. */
export function readConfig(raw: unknown): ModelConfig {
  return normalizeConfig(raw, familyOf(modelTypeOf(raw)).config);
}
