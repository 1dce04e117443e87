/** Reads norms, biases and whatever else has one dimension, as the model's f32 buffer holds them. */
import { numbersFrom } from "./formats/stored.ts";
import type { VectorPart } from "./vectors.ts";
import type { WeightPlan } from "./weightPlan.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** What ends it, and who is told of each tensor. */
interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onRead: (tensor: CheckpointTensor) => void;
}

/** The `length` f32s of the buffer, its tables included; zeros where nothing is planned. Each tensor is read once, whoever has a part of it. */
export async function readVectors(
  { vectors, tables }: Pick<WeightPlan, "vectors" | "tables">,
  length: number,
  { signal, onRead }: ReadOptions,
): Promise<Float32Array<ArrayBuffer>> {
  const values = new Float32Array(length);
  for (const table of tables) values.set(table.values, table.offset);
  for (const [tensor, parts] of byTensor(vectors)) {
    const numbers = numbersFrom(await tensor.source.read(tensor.begin, tensor.end, signal), tensor.dtype);
    for (const { count, from, at, add } of parts) {
      for (let i = 0; i < count; i++) values[at(i)] = (numbers[from(i)] ?? Number.NaN) + add;
    }
    onRead(tensor);
  }
  return values;
}

/** A stack of experts has the biases of all of them in one tensor: read for each, it would come a hundred times. */
function byTensor(vectors: readonly VectorPart[]): Map<CheckpointTensor, VectorPart[]> {
  const all = new Map<CheckpointTensor, VectorPart[]>();
  for (const part of vectors) {
    const known = all.get(part.tensor);
    if (known === undefined) all.set(part.tensor, [part]);
    else known.push(part);
  }
  return all;
}
