/** What can be known of a model before its weights: from small files and headers. */
import type { Folder } from "../device/files.ts";
import type { ModelConfig } from "../models/config.ts";
import { readDetails } from "../models/details.ts";
import { ModelFormatError } from "../models/errors.ts";
import { familyOf, readConfig } from "../models/families/registry.ts";
import { type GenerationDefaults, readGenerationConfig, stopTokenIds } from "../models/generationConfig.ts";
import type { Model } from "../models/model.ts";
import { ropesVariant } from "../models/rope.ts";
import { type ChatTemplate, loadChatTemplate } from "../models/text/chatTemplate.ts";
import { loadTokenizer, type Tokenizer } from "../models/text/tokenizer.ts";
import { planBytes, WeightPlan } from "../models/weightPlan.ts";
import { type Checkpoint, openCheckpoint } from "../models/weights/checkpoint.ts";
import { readJson } from "../models/weights/readJson.ts";

/** How far loading is: bytes downloaded from the hub, where they are not there yet; bytes of the weights and, meanwhile, kernels compiled; then kernels tried and steps of the warm-up. */
export interface LoadProgress {
  readonly stage: "download" | "weights" | "kernels" | "warm-up";
  readonly loaded: number;
  readonly total: number;
  /** The file that is downloaded. */
  readonly file?: string;
}

/** A model whose files are open and consistent; nothing is on the GPU yet. Whoever read it closes `checkpoint`. */
export interface ReadModel {
  readonly location: string;
  readonly config: ModelConfig;
  readonly generation: GenerationDefaults;
  readonly tokenizer: Tokenizer | undefined;
  readonly template: ChatTemplate | undefined;
  readonly stopIds: readonly number[];
  readonly checkpoint: Checkpoint;
  readonly weights: WeightPlan;
  readonly model: Model;
  /** On the GPU. */
  readonly weightBytes: number;
  readonly ropeVariant: (length: number) => number;
  /** Tokens that the model itself can take. */
  readonly context: number;
}

/** Reads everything but the weights and checks it against each other. */
export async function readModel(folder: Folder, signal?: AbortSignal): Promise<ReadModel> {
  const raw = await readJson(folder, "config.json", signal);
  if (raw === undefined) {
    throw new ModelFormatError("CONFIG", `${folder.location}: has no config.json, expected a folder as on the hub`);
  }
  const config = readConfig(raw);
  const generation = readGenerationConfig((await readJson(folder, "generation_config.json", signal)) ?? {});
  const tokenizer = await loadTokenizer(folder);
  const template = tokenizer === undefined ? undefined : await loadChatTemplate(folder);
  if (tokenizer !== undefined && tokenizer.size > config.vocab_size) {
    const message = `tokenizer.json: has id ${tokenizer.size - 1}, expected less than vocab_size ${config.vocab_size} of config.json`;
    throw new ModelFormatError("VOCABULARY", `${message}; do the two belong together?`);
  }
  const checkpoint = await openCheckpoint(folder, signal);
  try {
    const details = await readDetails(checkpoint, config.quantization, signal);
    const weights = new WeightPlan(checkpoint, config.quantization, details);
    const model = familyOf(config.model_type).build(weights, config);
    const copy = (name: string) => config.tie_word_embeddings && name.startsWith(`${model.head}.`);
    weights.finish((name) => copy(name) || model.unused?.test(name) === true);
    const stopIds = stopTokenIds(config, generation, tokenizer?.eosTokenIds ?? []);
    return {
      location: folder.location,
      config,
      generation,
      tokenizer,
      template,
      stopIds,
      checkpoint,
      weights,
      model,
      weightBytes: planBytes(weights),
      ropeVariant: (length) => ropesVariant(config.ropes, length),
      context: modelContext(config),
    };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Dynamic scaling has no last position: its frequencies follow the length. Published results hold to about eight times the trained one. */
const DYNAMIC_REACH = 8;

function modelContext({ ropes, max_position_embeddings }: ModelConfig): number {
  return max_position_embeddings * (ropes.some(({ type }) => type === "dynamic") ? DYNAMIC_REACH : 1);
}
