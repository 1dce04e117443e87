/** `ingle inspect MODEL`: a model's folder, read as loading would read it, without a GPU. */
import { bytes } from "../device/buffers.ts";
import { kvTypesOf } from "../engine/kvType.ts";
import { type ReadModel, readModel } from "../engine/loadModel.ts";
import { heldBytes } from "../engine/pageSizes.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import type { Checkpoint } from "../models/weights/checkpoint.ts";
import type { Context } from "./command.ts";
import { EXIT } from "./errors.ts";
import { openFolder } from "./openFolder.ts";
import { jsonLine, print, table } from "./output.ts";
import { tensorRows } from "./tensorTable.ts";
import { bitsPerWeight, bytesByLabel, matrixBytes, weightLabel } from "./weightLabel.ts";

interface InspectOptions extends Context {
  readonly json: boolean;
  /** Tokens to count memory for; undefined: the model's own. */
  readonly context: number | undefined;
  /** Looks at the weights themselves. */
  check(checkpoint: Checkpoint): Promise<void>;
}

/** Prints what the model is. Throws what loading would throw: the first thing that keeps it from it. */
export async function inspectModel(name: string, options: InspectOptions): Promise<number> {
  const model = await readModel(await openFolder(name, options), options.signal);
  try {
    await options.check(model.checkpoint);
    const context = options.context ?? model.config.max_position_embeddings;
    print(options.json ? modelJson(name, model, context) : modelText(model, context));
    return EXIT.done;
  } finally {
    await model.checkpoint.close();
  }
}

/** Bytes of the keys and values of so many tokens: those behind a window are given back. */
function kvBytes({ model }: ReadModel, kvType: KvType, tokens: number): number {
  return heldBytes(model.caches, kvType, tokens);
}

/** Bytes of the states of one sequence, whatever its length. */
function stateBytes({ model }: ReadModel): number {
  return model.caches.reduce((sum, cache) => sum + (cache.kind === "state" ? cache.bytes : 0), 0);
}

function matrixRows({ weights }: ReadModel) {
  return weights.matrices.map((matrix) => ({
    name: matrix.name,
    format: matrix.format ?? "",
    layout: weightLabel(matrix),
    rows: matrix.parts.reduce((sum, { rows }) => sum + rows, 0),
    cols: matrix.cols,
    bits_per_weight: bitsPerWeight(matrix),
    bytes: matrixBytes(matrix),
  }));
}

/** Norms, biases and whatever else has one dimension: f32 on the GPU, a tensor each. */
function vectorRows({ weights }: ReadModel) {
  const elements = new Map<string, { format: string; elements: number }>();
  for (const { tensor, count } of weights.vectors) {
    const known = elements.get(tensor.name)?.elements ?? 0;
    elements.set(tensor.name, { format: tensor.dtype, elements: known + count });
  }
  return Array.from(elements, ([name, it]) => {
    return { name, layout: "f32", ...it, bits_per_weight: 32, bytes: 4 * it.elements };
  });
}

/** Vectors as one row of the table for each type that they are stored in. */
function vectorCells(model: ReadModel): string[][] {
  const rows = vectorRows(model);
  return [...new Set(rows.map(({ format }) => format))].map((dtype) => {
    const own = rows.filter(({ format }) => format === dtype);
    const elements = own.reduce((sum, it) => sum + it.elements, 0);
    return [`${own.length} norms, biases and others`, dtype, "f32", String(elements), "32.00", bytes(4 * elements)];
  });
}

function modelJson(name: string, model: ReadModel, context: number): string {
  const { config, generation, stopIds, tokenizer, template, checkpoint, weightBytes } = model;
  const kv = Object.fromEntries(
    kvTypesOf(model.model.caches).map((kvType) => [kvType, kvBytes(model, kvType, context)]),
  );
  return jsonLine({
    model: name,
    architecture: config.model_type,
    config: { ...config, quantization: undefined },
    generation,
    stop_token_ids: stopIds,
    tokenizer: tokenizer === undefined ? null : { size: tokenizer.size },
    chat_template: template?.source ?? null,
    parameters: parameters(model),
    tensors: tensorRows(checkpoint.tensors.values()),
    matrices: matrixRows(model),
    vectors: vectorRows(model),
    memory: { weights: weightBytes, context, kv, state: stateBytes(model) },
  });
}

/** Weights of the model as a family counts them: packed ones by what they stand for. */
export function parameters({ weights }: ReadModel): number {
  const matrices = weights.matrices.reduce(
    (sum, { cols, parts }) => sum + parts.reduce((rows, part) => rows + part.rows, 0) * cols,
    0,
  );
  return weights.vectors.reduce((sum, { count }) => sum + count, matrices);
}

function modelText(model: ReadModel, context: number): string {
  const { config, stopIds, tokenizer, template, checkpoint, weights, weightBytes, location } = model;
  const windows = config.windows.filter((window) => window !== null);
  const kv = kvTypesOf(model.model.caches)
    .map((kvType) => `${bytes(kvBytes(model, kvType, context))} as ${kvType}`)
    .join(", ");
  const further = kvBytes(model, "f16", context + 1000) - kvBytes(model, "f16", context);
  const facts: [string, string][] = [
    ["model", location],
    ["architecture", `${config.model_type}, ${(parameters(model) / 1e6).toFixed(1)} million parameters`],
    [
      "layers",
      `${config.num_hidden_layers}${windows.length > 0 ? `, ${windows.length} with a window of ${windows[0]}` : ""}`,
    ],
    ["hidden size", `${config.hidden_size}, feed-forward ${config.intermediate_size}`],
    ["heads", headsLine(config)],
    ["vocabulary", `${config.vocab_size}${tokenizer === undefined ? ", no tokenizer.json: token ids only" : ""}`],
    ["chat template", template?.source ?? "none: prompts are continued as they are"],
    ["stop tokens", stopIds.length === 0 ? "none are known" : stopIds.map((id) => stopName(model, id)).join(", ")],
    ["files", `${checkpoint.tensors.size} tensors, ${bytes(checkpoint.bytes)}`],
    [
      "stored as",
      bytesByLabel(weights.matrices)
        .map(([label, size]) => `${label} ${bytes(size)}`)
        .join(", "),
    ],
    ["memory", `weights ${bytes(weightBytes)}; keys and values of ${context} tokens ${kv}`],
    ["", `each further 1000 tokens ${bytes(Math.round(further))} as f16`],
  ];
  const state = stateBytes(model);
  if (state > 0) {
    const layers = model.model.caches.filter(({ kind }) => kind === "state").length;
    facts.push(["", `each sequence ${bytes(state)} for the states of ${layers} layers, whatever its length`]);
  }
  if (context > config.max_position_embeddings)
    facts.push(["", `${context} tokens are more than the model was made for, ${config.max_position_embeddings}`]);
  const rows = matrixRows(model).map((row) => {
    const [size, bits] = [`${row.rows} × ${row.cols}`, row.bits_per_weight.toFixed(2)];
    return [row.name, row.format, row.layout, size, bits, bytes(row.bytes)];
  });
  const about = table(["", ""], facts).trimStart();
  return `${about}\n${table(["matrix", "format", "layout", ">rows × cols", ">bits a weight", ">size"], [...rows, ...vectorCells(model)])}it would load\n`;
}

function headsLine({ num_attention_heads: heads, num_key_value_heads, head_dim, latent }: ReadModel["config"]): string {
  if (latent === null) return `${heads} of ${head_dim}, ${num_key_value_heads} for keys and values`;
  const { qk_nope_head_dim, qk_rope_head_dim, kv_lora_rank } = latent;
  return `${heads} of ${qk_nope_head_dim} + ${qk_rope_head_dim}, one latent of ${kv_lora_rank} + ${qk_rope_head_dim} for keys and values`;
}

function stopName({ tokenizer }: ReadModel, id: number): string {
  return tokenizer === undefined ? String(id) : `${id} ${tokenizer.tokenText(id)}`;
}
