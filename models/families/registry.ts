/** Families by the `model_type` of config.json. */
import { UnsupportedModelError } from "../errors.ts";
import type { Family } from "../model.ts";
import { llama } from "./llama.ts";

const families: Readonly<Record<string, Family>> = { llama };

/** The family of a model type. Throws UnsupportedModelError, which lists those there are. */
export function familyOf(modelType: string): Family {
  const family = Object.hasOwn(families, modelType) ? families[modelType] : undefined;
  if (family !== undefined) return family;
  const known = Object.keys(families).sort().join(", ");
  throw new UnsupportedModelError(
    `config.json: model_type is ${JSON.stringify(modelType)}, expected one of: ${known}; CONTRIBUTING.md says how to add a family`,
  );
}
