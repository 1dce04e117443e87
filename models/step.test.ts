import { expect, test } from "vitest";
import type { AdapterDescription } from "../device/adapters.ts";
import { rowsVariant } from "../kernels/variantNames.ts";
import { matmulWay } from "./step.ts";

const adapter = { kind: "software", subgroupMinSize: 8, subgroupMaxSize: 8 } as AdapterDescription;
const gpu = (...off: string[]) => ({ adapter, features: new Set(["subgroups"]), off: new Set(off) });

test("rows at once that are switched off are not what long rows fall back to", () => {
  const long = { rows: 64, stride: 4096 };
  expect(matmulWay(gpu(), long)).toEqual({ from: "broadcast", m: 4 });
  expect(matmulWay(gpu(rowsVariant(4)), long)).toEqual({ from: "broadcast", m: 2 });
  expect(matmulWay(gpu(rowsVariant(4), rowsVariant(2)), long)).toEqual({ from: "broadcast", m: 1 });
  const beyond = { rows: 64, stride: 16416 };
  expect(matmulWay(gpu(), beyond)).toEqual({ from: "storage", m: 4 });
  expect(matmulWay(gpu(rowsVariant(4), rowsVariant(2)), beyond)).toEqual({ from: "storage", m: 1 });
});
