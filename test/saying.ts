/** One model said another way: what a saying is, checkpoints as they lie in memory, and the folders that hold them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Folder } from "../device/files.ts";
import { memoryFolder } from "../device/memoryFiles.ts";
import { openFile } from "../device/nodeFiles.ts";
import { bf16FromBits, f16FromBits } from "../kernels/formats/halves.ts";
import { openWeights } from "../models/weights/checkpoint.ts";
import { safetensorsFile } from "../models/weights/writeSafetensors.ts";
import type { TinyModel, TinyTensor } from "./tinyModel.ts";

/** Another way to say a model, by which nothing that is computed changes. */
export interface Saying {
  readonly name: string;
  /** The model in that way; null where it has nothing that could be said so. */
  say(model: TinyModel): TinyModel | null;
}

/** A model in one way after the other, with the names of those that it has and of those that it has not. */
export function sayAll(model: TinyModel, sayings: readonly Saying[]) {
  const [said, unsaid]: [string[], string[]] = [[], []];
  let now = model;
  for (const { name, say } of sayings) {
    const next = say(now);
    (next === null ? unsaid : said).push(name);
    now = next ?? now;
  }
  return { model: now, said, unsaid };
}

/** A checkpoint's folder, whole; of its shards one set. */
export async function readModel(folder: URL): Promise<TinyModel> {
  const config = JSON.parse(readFileSync(new URL("config.json", folder), "utf8"));
  const files = readdirSync(folder).filter((name) => /^model.*\.safetensors$/.test(name));
  const tensors = new Map<string, TinyTensor>();
  for (const file of files) {
    const checkpoint = await openWeights(await openFile(join(folder.pathname, file)));
    for (const { name, dtype, shape } of checkpoint.tensors.values())
      tensors.set(name, { dtype: dtype as TinyTensor["dtype"], shape, bytes: await checkpoint.read(name) });
    await checkpoint.close();
  }
  return { config, tensors };
}

/** A folder of `count` shards, tensors dealt to them in turn, the last first; of one file where `count` is 1. */
export function shardedFolder({ config, tensors }: TinyModel, count: number): Folder {
  const text = JSON.stringify(config);
  if (count === 1) return memoryFolder({ "config.json": text, "model.safetensors": safetensorsFile(tensors) });
  const names = Array.from({ length: count }, (_, i) => `model-0000${i + 1}-of-0000${count}.safetensors`);
  const dealt = [...tensors].reverse().map((entry, i) => ({ entry, file: names[i % count] ?? "" }));
  const shards = names.map((file) => {
    const own = dealt.filter((it) => it.file === file).map((it) => it.entry);
    return [file, safetensorsFile(new Map(own))] as const;
  });
  const index = {
    metadata: { total_size: [...tensors.values()].reduce((sum, { bytes }) => sum + bytes.length, 0) },
    weight_map: Object.fromEntries(dealt.map(({ entry: [name], file }) => [name, file])),
  };
  const rest = { "config.json": text, "model.safetensors.index.json": JSON.stringify(index) };
  return memoryFolder({ ...rest, ...Object.fromEntries(shards) });
}

/** Tensors under other names; undefined: it is left out. */
export function renamed({ config, tensors }: TinyModel, name: (name: string) => string | undefined): TinyModel {
  const entries = [...tensors].flatMap(([old, tensor]) => {
    const now = name(old);
    return now === undefined ? [] : [[now, tensor] as const];
  });
  return { config, tensors: new Map(entries) };
}

/** Tensors one by one, each as it is or another one. */
export function changed(
  { config, tensors }: TinyModel,
  change: (tensor: TinyTensor, name: string) => TinyTensor,
): TinyModel {
  return { config, tensors: new Map([...tensors].map(([name, tensor]) => [name, change(tensor, name)])) };
}

/** Several tensors of one shape as one, with a dimension more. */
export function stack(tensors: readonly TinyTensor[]): TinyTensor {
  const [first] = tensors;
  if (first === undefined) throw new RangeError("stack: no tensors");
  return { ...first, shape: [tensors.length, ...first.shape], bytes: joinBytes(tensors.map(({ bytes }) => bytes)) };
}

/** Tensors behind each other along their first dimension. */
export function behind(tensors: readonly TinyTensor[]): TinyTensor {
  const { shape, ...rest } = stack(tensors);
  const [, , ...inner] = shape;
  return { ...rest, shape: [tensors.reduce((sum, it) => sum + (it.shape[0] ?? 0), 0), ...inner] };
}

/** Items of the first dimension. */
export function items(tensor: TinyTensor): TinyTensor[] {
  const [count = 0, ...shape] = tensor.shape;
  const each = tensor.bytes.length / count;
  return Array.from({ length: count }, (_, i) => ({
    ...tensor,
    shape,
    bytes: tensor.bytes.slice(i * each, (i + 1) * each),
  }));
}

/** The last two dimensions in each other's place. */
export function turned(tensor: TinyTensor): TinyTensor {
  const [rows = 0, cols = 0] = tensor.shape.slice(-2);
  const count = tensor.shape.slice(0, -2).reduce((a, b) => a * b, 1);
  const size = tensor.bytes.length / (count * rows * cols);
  const bytes = new Uint8Array(tensor.bytes.length);
  for (let e = 0; e < count * rows * cols; e++) {
    const [m, row, col] = [Math.floor(e / (rows * cols)), Math.floor(e / cols) % rows, e % cols];
    bytes.set(tensor.bytes.subarray(e * size, (e + 1) * size), (m * rows * cols + col * rows + row) * size);
  }
  return { ...tensor, shape: [...tensor.shape.slice(0, -2), cols, rows], bytes };
}

/** The numbers of a plain tensor. */
export function numbersOf({ dtype, bytes }: TinyTensor): Float32Array {
  const buffer = bytes.slice().buffer;
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype !== "F16" && dtype !== "BF16") throw new RangeError(`numbers of ${dtype}: expected a plain tensor`);
  return Float32Array.from(new Uint16Array(buffer), dtype === "F16" ? f16FromBits : bf16FromBits);
}

function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
