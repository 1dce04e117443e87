/** Modules of every checkpoint format, cut out of checkpoints that the reference libraries wrote, with the hash of their f32 weights. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openFile } from "../device/nodeFiles.ts";
import { fieldsOf } from "../models/configChecks.ts";
import { readDetails } from "../models/details.ts";
import type { Matrix } from "../models/matrix.ts";
import { normalizeQuantization } from "../models/quantization.ts";
import { WeightPlan } from "../models/weightPlan.ts";
import { type Checkpoint, openWeights } from "../models/weights/checkpoint.ts";
import { type TinyModel, type TinyShape, type TinyTensor, tinyModel } from "./tinyModel.ts";

/** One module of a fixture. */
export interface FixtureModule {
  readonly module: string;
  /** Rows and columns; experts, columns and rows where gate and up of all experts are one tensor. */
  readonly shape: readonly number[];
  /** Of the f32 weights row by row; of experts, each one's gate before its up. */
  readonly sha256: string;
  /** Whether the weights themselves are in the file, since ours may differ in their last bit. */
  readonly values?: true;
}

interface Fixture {
  readonly config: unknown;
  readonly modules: readonly FixtureModule[];
}

const FOLDER = new URL("fixtures/formats/", import.meta.url);

/** By name. */
export const formatFixtures = JSON.parse(readFileSync(new URL("index.json", FOLDER), "utf8")) as Readonly<
  Record<string, Fixture>
>;

/** A fixture planned: a matrix for each of its modules, in order. */
export async function planFixture(
  name: string,
): Promise<{ checkpoint: Checkpoint; plan: WeightPlan; matrices: Matrix[] }> {
  const fixture = formatFixtures[name];
  if (fixture === undefined) throw new RangeError(`no fixture is called ${name}`);
  const checkpoint = await openWeights(await openFile(fileURLToPath(new URL(`${name}.safetensors`, FOLDER))));
  const quantization = normalizeQuantization(fieldsOf("config.json", fixture.config));
  const plan = new WeightPlan(checkpoint, quantization, await readDetails(checkpoint, quantization));
  const matrices = fixture.modules.map(({ module, shape }) => planModule(plan, module, shape));
  return { checkpoint, plan, matrices };
}

/** A small Llama with the fixture's modules among its own, which are plain. */
export async function modelAround(name: string): Promise<TinyModel> {
  const fixture = formatFixtures[name];
  if (fixture === undefined) throw new RangeError(`no fixture is called ${name}`);
  const config = Object.fromEntries(Object.entries(fieldsOf("config.json", fixture.config).values));
  const { tensors, ...model } = tinyModel({ ...shapeAround(fixture.modules), layout: "f16", config });
  const own = await openWeights(await openFile(fileURLToPath(new URL(`${name}.safetensors`, FOLDER))));
  for (const { module } of fixture.modules) tensors.delete(`${module}.weight`);
  for (const { name: tensor, dtype, shape } of own.tensors.values()) {
    if (tensor.startsWith("dequantized.")) continue;
    tensors.set(tensor, { dtype: dtype as TinyTensor["dtype"], shape, bytes: await own.read(tensor) });
  }
  await own.close();
  return { ...model, tensors };
}

/** Sizes of a model that has these modules. */
function shapeAround(modules: readonly FixtureModule[]): TinyShape {
  const headDim = 32;
  const sizes = modules.map(({ module, shape: [rows = 0, cols = 0] }) => {
    const name = module.replace(/^.*\./, "");
    if (name === "k_proj") return { hidden: cols, kvHeads: rows / headDim };
    if (name === "down_proj") return { hidden: rows, intermediate: cols };
    return name === "up_proj" ? { hidden: cols, intermediate: rows } : { hidden: cols };
  });
  const { hidden = 128, kvHeads, intermediate = 256 } = Object.assign({}, ...sizes);
  const layers = modules.some(({ module }) => module.includes("layers.1.")) ? 2 : 1;
  const heads = hidden / headDim;
  return { layers, hidden, headDim, heads, kvHeads: kvHeads ?? heads, intermediate, vocab: 256 };
}

function planModule(plan: WeightPlan, module: string, shape: readonly number[]): Matrix {
  const [first = 0, second = 0, third] = shape;
  if (third === undefined) return plan.matrix(module, first, second);
  const rows = third / 2;
  const half = (index: number, part: number) => ({
    module,
    rows,
    expert: { index, of: first },
    slice: { first: part, take: 1, period: 2, of: third }, // gate and up by turns
  });
  return plan.experts(first, (e) => [half(e, 0), half(e, 1)], rows, second);
}
