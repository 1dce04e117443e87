/** Vectors read on the CPU: each element at its place, each tensor once. */
import { expect, test } from "vitest";
import type { Folder } from "../device/files.ts";
import { floats, tinyFolder, tinyModel } from "../test/tinyModel.ts";
import { readConfig } from "./families/registry.ts";
import { readVectors } from "./readVectors.ts";
import { WeightPlan } from "./weightPlan.ts";
import { openCheckpoint } from "./weights/checkpoint.ts";

/** The folder, which tells of each range that is read. */
function watched(folder: Folder, reads: number[]): Folder {
  return {
    ...folder,
    open: async (name) => {
      const source = await folder.open(name);
      return (
        source && {
          ...source,
          read: (begin, end, ended) => {
            reads.push(end - begin);
            return source.read(begin, end, ended);
          },
        }
      );
    },
  };
}

test("biases of a stack of experts are read at once, and lie where their rows do", async () => {
  const model = tinyModel({ layers: 1, hidden: 64, heads: 2, kvHeads: 1, headDim: 24, intermediate: 80, bias: true });
  const [biases, norm] = ["experts.up_proj.bias", "experts.norm.weight"];
  // 3 experts of 4 rows: element 10 e + i.
  const values = Float32Array.from({ length: 12 }, (_, i) => 10 * Math.floor(i / 4) + (i % 4));
  model.tensors.set(biases, floats(values, "BF16", [3, 4]));
  model.tensors.set(norm, floats(Float32Array.of(0.5, -2), "F16", [2]));
  const reads: number[] = [];
  const config = readConfig(model.config);
  const plan = new WeightPlan(await openCheckpoint(watched(tinyFolder(model), reads)), config.quantization);
  const bias = plan.expertsBias(
    3,
    (index) => ({ module: "experts.up_proj", rows: 4, expert: { index, of: 3 } }),
    4,
    true,
  );
  const weight = plan.vector(norm, 2, { add: 1 });
  reads.length = 0;
  const told: string[] = [];
  const length = plan.auxLength + 8;
  const tables = [{ offset: plan.auxLength, values: Float32Array.of(7, 8) }];
  const read = await readVectors({ vectors: plan.vectors, tables }, length, { onRead: ({ name }) => told.push(name) });
  const at = (offset: number, count: number) => [...read.subarray(offset, offset + count)];
  expect([0, 1, 2].map((e) => at((bias?.offset ?? Number.NaN) + 32 * e, 5))).toEqual([
    [0, 1, 2, 3, 0],
    [10, 11, 12, 13, 0],
    [20, 21, 22, 23, 0],
  ]);
  expect(at(weight.offset, 3)).toEqual([1.5, -1, 0]);
  expect(at(plan.auxLength, 3)).toEqual([7, 8, 0]);
  expect(reads).toEqual([24, 4]);
  expect(told).toEqual([biases, norm]);
});
