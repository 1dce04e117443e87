/** Families by the `model_type` of config.json. */
import { type ModelConfig, modelTypeOf, normalizeConfig } from "../config.ts";
import { UnsupportedModelError } from "../errors.ts";
import type { Family } from "../model.ts";
import { ernie4_5 } from "./ernie4_5.ts";
import { granite } from "./granite.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import { smollm3 } from "./smollm3.ts";

const families: Readonly<Record<string, Family>> = {
  ernie4_5,
  granite,
  llama,
  mistral,
  qwen2,
  qwen3,
  smollm3,
};

/** The family of a model type. Throws UnsupportedModelError, which lists those there are. */
export function familyOf(modelType: string): Family {
  const family = Object.hasOwn(families, modelType) ? families[modelType] : undefined;
  if (family !== undefined) return family;
  const known = Object.keys(families).sort().join(", ");
  throw new UnsupportedModelError(
    `config.json: model_type is ${JSON.stringify(modelType)}, expected one of: ${known}; CONTRIBUTING.md says how to add a family`,
  );
}

/** The config of a checkpoint, from parsed JSON, as its family reads it. Throws as `familyOf` and `normalizeConfig` do. */
export function readConfig(raw: unknown): ModelConfig {
  return normalizeConfig(raw, familyOf(modelTypeOf(raw)).config);
}
