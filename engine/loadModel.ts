/** Loading in two halves: what can be known from small files and headers, and the weights themselves. */
import type { Folder } from "../device/files.ts";
import type { Gpu } from "../device/gpu.ts";
import type { PipelineCache } from "../device/pipelines.ts";
import { allocateWeights, freeWeights } from "../models/allocateWeights.ts";
import { type ModelConfig, modelTypeOf, normalizeConfig } from "../models/config.ts";
import { ModelFormatError } from "../models/errors.ts";
import { familyOf } from "../models/families/registry.ts";
import { type GenerationDefaults, readGenerationConfig, stopTokenIds } from "../models/generationConfig.ts";
import { loadWeights } from "../models/loadWeights.ts";
import type { Model } from "../models/model.ts";
import { ropesVariant } from "../models/rope.ts";
import { type ChatTemplate, loadChatTemplate } from "../models/text/chatTemplate.ts";
import { loadTokenizer, type Tokenizer } from "../models/text/tokenizer.ts";
import { planBytes, WeightPlan } from "../models/weightPlan.ts";
import { type Checkpoint, openCheckpoint } from "../models/weights/checkpoint.ts";
import { readJson } from "../models/weights/readJson.ts";

/** How far loading is; bytes for weights, kernels for kernels. */
export interface LoadProgress {
  readonly stage: "weights" | "kernels";
  readonly loaded: number;
  readonly total: number;
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
  const family = familyOf(modelTypeOf(raw));
  const config = normalizeConfig(raw, family.config);
  const generation = readGenerationConfig((await readJson(folder, "generation_config.json", signal)) ?? {});
  const tokenizer = await loadTokenizer(folder);
  const template = tokenizer === undefined ? undefined : await loadChatTemplate(folder);
  if (tokenizer !== undefined && tokenizer.size > config.vocab_size) {
    const message = `tokenizer.json: has id ${tokenizer.size - 1}, expected less than vocab_size ${config.vocab_size} of config.json`;
    throw new ModelFormatError("VOCABULARY", `${message}; do the two belong together?`);
  }
  const checkpoint = await openCheckpoint(folder, signal);
  try {
    const weights = new WeightPlan(checkpoint, config.quantization);
    const model = family.build(weights, config);
    const copies = ["weight", "scales", "biases"].map((tensor) => `${model.head}.${tensor}`);
    weights.finish((name) => config.tie_word_embeddings && copies.includes(name));
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

/** What of a model lives on the GPU. */
export interface LoadedModel {
  readonly pipelines: PipelineCache;
  readonly aux: GPUBuffer;
  free(): void;
}

/** Streams the weights to the GPU. */
export async function loadModel(
  gpu: Gpu,
  pipelines: PipelineCache,
  { weights, checkpoint }: ReadModel,
  options: { readonly signal?: AbortSignal; readonly onProgress?: (progress: LoadProgress) => void },
): Promise<LoadedModel> {
  const { signal, onProgress } = options;
  const onBytes = (loaded: number) => onProgress?.({ stage: "weights", loaded, total: checkpoint.bytes });
  const aux = await allocateWeights(gpu, weights);
  try {
    await loadWeights(gpu, pipelines, weights, aux, { onBytes, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    freeWeights(gpu, weights, aux);
    throw error;
  }
  return { pipelines, aux, free: () => freeWeights(gpu, weights, aux) };
}
