/** A checkpoint as one set of named tensors, whether it lies in one safetensors file or in the shards of an index. */

import type { ByteSource, Folder } from "../../device/files.ts";
import { staysInside } from "../../device/sourceChecks.ts";
import { ModelFormatError } from "../errors.ts";
import { escapeName, listNames } from "./escape.ts";
import { readJson } from "./readJson.ts";
import { readHeader, type StreamOptions, streamTensor, type TensorChunk } from "./safetensors.ts";
import type { TensorInfo } from "./tensorInfo.ts";

/** A tensor and the file that holds it. */
export interface CheckpointTensor extends TensorInfo {
  readonly source: ByteSource;
}

/** The opened files of a checkpoint. Whoever opened it closes it. */
export interface Checkpoint {
  /** The folder or file, as the user gave it. */
  readonly location: string;
  /** Every tensor of every indexed file, whether the model knows it or not. */
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** `__metadata__` of the files; where they differ, the first file's. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Bytes of all tensors. */
  readonly bytes: number;
  /**
   * TOTAL_SIZE, where the index promises another number of bytes than there are. Not thrown at once, since most often a tensor is
   * missing or foreign, and `TensorClaims` can say which: it throws this only where it finds nothing better to say.
   */
  readonly totalSizeFault: ModelFormatError | undefined;
  /** A whole tensor, for those that are small. Throws MISSING_TENSOR for a name that is not there. */
  read(name: string, signal?: AbortSignal): Promise<Uint8Array>;
  /** A tensor in pieces, in order. Throws MISSING_TENSOR for a name that is not there. */
  stream(name: string, options?: StreamOptions): AsyncGenerator<TensorChunk, void, undefined>;
  /** Closes every file. */
  close(): Promise<void>;
}

const INDEX = "model.safetensors.index.json";
const SINGLE = "model.safetensors";

/** Shards opened at once: HTTP takes a round trip each. */
const TOGETHER = 8;

const LISTED = 64; // missing shards that are named; the largest models have about 200

/**
 * Opens the weights of `folder`: the files that `model.safetensors.index.json` names and no others, or `model.safetensors` where
 * there is no index. Reads headers only. On failure everything that was opened is closed again.
 * Throws ModelFormatError: those of `readHeader`, and NO_WEIGHTS, INDEX, INDEX_NAME (a shard outside the folder), SHARD_MISSING,
 * INDEX_TENSOR (a shard lacks what the index places there), TENSOR_TWICE, and TOTAL_SIZE where it is no number.
 */
export async function openCheckpoint(folder: Folder, signal?: AbortSignal): Promise<Checkpoint> {
  const index = await readJson(folder, INDEX, signal);
  if (index !== undefined) return await openShards(folder, parseIndex(index), signal);
  const source = await folder.open(SINGLE);
  if (source === undefined) {
    const message = `has neither ${INDEX} nor ${SINGLE}, expected one of them; other formats must be converted to .safetensors`;
    throw new ModelFormatError("NO_WEIGHTS", `${folder.location}: ${message}`);
  }
  return await openWeights(source, signal);
}

/** One safetensors file as a checkpoint, which owns `source` from now on and closes it, on failure too. */
export async function openWeights(source: ByteSource, signal?: AbortSignal): Promise<Checkpoint> {
  return await closingOnFailure(new Map([[source.name, source]]), async () =>
    merged(source.name, [await readShard(source, signal)]),
  );
}

interface Index {
  /** Tensor name → file name. */
  readonly files: ReadonlyMap<string, string>;
  readonly totalSize: number | undefined;
}

interface Shard {
  readonly source: ByteSource;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

function parseIndex(value: unknown): Index {
  const weightMap = isRecord(value) ? value.weight_map : undefined;
  if (!isRecord(weightMap))
    throw indexError("INDEX", "has no object weight_map, expected tensor names with their files");
  const files = new Map<string, string>();
  for (const [name, file] of Object.entries(weightMap)) files.set(name, shardName(name, file));
  if (files.size === 0) throw indexError("INDEX", "weight_map is empty, expected tensor names with their files");
  const metadata = isRecord(value) && isRecord(value.metadata) ? value.metadata : {};
  return { files, totalSize: parseTotal(metadata.total_size) };
}

function shardName(tensor: string, file: unknown): string {
  const where = `weight_map places "${escapeName(tensor)}"`;
  if (typeof file !== "string") throw indexError("INDEX", `${where} in ${typeof file}, expected a file name`, tensor);
  if (!staysInside(file)) {
    throw indexError(
      "INDEX_NAME",
      `${where} in "${escapeName(file)}", expected a file inside the folder; do not trust this model`,
      tensor,
    );
  }
  if (!file.endsWith(".safetensors")) {
    throw indexError("INDEX_NAME", `${where} in "${escapeName(file)}", expected a .safetensors file`, tensor);
  }
  return file;
}

function parseTotal(total: unknown): number | undefined {
  if (total === undefined) return undefined;
  if (typeof total === "number" && Number.isSafeInteger(total) && total >= 0) return total;
  throw indexError(
    "TOTAL_SIZE",
    `metadata.total_size is ${escapeName(JSON.stringify(total))}, expected a number of bytes`,
  );
}

async function openShards(folder: Folder, index: Index, signal?: AbortSignal): Promise<Checkpoint> {
  const names = [...new Set(index.files.values())].sort();
  const opened = new Map<string, ByteSource>();
  return await closingOnFailure(opened, async () => {
    await inBatches(names, async (name) => {
      signal?.throwIfAborted();
      const source = await folder.open(name);
      if (source !== undefined) opened.set(name, source);
    });
    const missing = names.filter((name) => !opened.has(name));
    if (missing.length > 0) throw shardsMissing(folder, missing, names.length);
    const shards = new Map(
      await inBatches([...opened], async ([name, source]) => [name, await readShard(source, signal)] as const),
    );
    checkPlaces(index, shards);
    const inOrder = names.map((name) => shards.get(name)).filter((shard) => shard !== undefined);
    const checkpoint = merged(folder.location, inOrder);
    return { ...checkpoint, totalSizeFault: totalSizeFault(index, checkpoint) };
  });
}

async function readShard(source: ByteSource, signal?: AbortSignal): Promise<Shard> {
  return { source, ...(await readHeader(source, signal)) };
}

function checkPlaces(index: Index, shards: ReadonlyMap<string, Shard>): void {
  for (const [name, file] of index.files) {
    if (shards.get(file)?.tensors.has(name)) continue;
    throw indexError(
      "INDEX_TENSOR",
      `places "${escapeName(name)}" in ${file}, which does not have it; download both again`,
      name,
    );
  }
}

// Writers count the tensors they index; a shard may hold buffers beside them.
function totalSizeFault({ files, totalSize }: Index, { tensors, bytes }: Checkpoint): ModelFormatError | undefined {
  if (totalSize === undefined || totalSize === bytes) return undefined;
  let indexed = 0;
  for (const name of files.keys()) indexed += sizeOf(tensors.get(name));
  if (totalSize === indexed) return undefined;
  const message = `metadata.total_size is ${totalSize}, the tensors have ${bytes} bytes`;
  return indexError("TOTAL_SIZE", `${message}; is a file from another model, or changed?`);
}

function merged(location: string, shards: readonly Shard[]): Checkpoint {
  const tensors = new Map<string, CheckpointTensor>();
  const metadata = new Map<string, string>();
  let bytes = 0;
  for (const shard of shards) {
    for (const info of shard.tensors.values()) {
      const other = tensors.get(info.name);
      if (other !== undefined) throw tensorTwice(info.name, other.source, shard.source);
      tensors.set(info.name, { ...info, source: shard.source });
      bytes += sizeOf(info);
    }
    for (const [key, value] of shard.metadata) if (!metadata.has(key)) metadata.set(key, value);
  }
  const find = (name: string): CheckpointTensor => {
    const tensor = tensors.get(name);
    if (tensor !== undefined) return tensor;
    throw new ModelFormatError("MISSING_TENSOR", `${location}: has no tensor "${escapeName(name)}"`, { tensor: name });
  };
  return {
    location,
    tensors,
    metadata,
    bytes,
    totalSizeFault: undefined,
    read: async (name, signal) => {
      const { source, begin, end } = find(name);
      return await source.read(begin, end, signal);
    },
    stream: (name, options) => {
      const tensor = find(name);
      return streamTensor(tensor.source, tensor, options);
    },
    close: async () => await closeAll(shards.map((shard) => shard.source)),
  };
}

async function closingOnFailure(
  sources: ReadonlyMap<string, ByteSource>,
  open: () => Promise<Checkpoint>,
): Promise<Checkpoint> {
  try {
    return await open();
  } catch (error) {
    await closeAll([...sources.values()]);
    throw error;
  }
}

async function closeAll(sources: readonly ByteSource[]): Promise<void> {
  await Promise.all(sources.map((source) => source.close()));
}

// Runs `work` on every item, a few at a time, and always to the end of a batch, so that nothing is opened behind a failure's back.
async function inBatches<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += TOGETHER) {
    for (const settled of await Promise.allSettled(items.slice(at, at + TOGETHER).map(work))) {
      if (settled.status === "rejected") throw settled.reason;
      results.push(settled.value);
    }
  }
  return results;
}

function sizeOf(info: TensorInfo | undefined): number {
  return info === undefined ? 0 : info.end - info.begin;
}

function shardsMissing(folder: Folder, missing: readonly string[], all: number): ModelFormatError {
  const message = `${missing.length} of the ${all} files that ${INDEX} names are not there: ${listNames(missing, LISTED)}; download them`;
  return new ModelFormatError("SHARD_MISSING", `${folder.location}: ${message}`);
}

function tensorTwice(name: string, first: ByteSource, second: ByteSource): ModelFormatError {
  const message = `is in ${first.name} and in ${second.name}, expected in one; which one is meant cannot be known`;
  return new ModelFormatError("TENSOR_TWICE", `${escapeName(name)}: ${message}`, { tensor: name });
}

function indexError(code: string, message: string, tensor?: string): ModelFormatError {
  return new ModelFormatError(code, `${INDEX}: ${message}`, tensor === undefined ? {} : { tensor });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
