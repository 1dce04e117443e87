/** Which way x reaches the lanes of a matmul on a device. */
import type { Gpu } from "../device/gpu.ts";
import type { XFrom } from "./fragments/matmul.ts";

/** Any choice gives the same bits: fragments/matmul.ts says when which is faster. */
export function xFrom({ adapter, features }: Pick<Gpu, "adapter" | "features">): XFrom {
  const eight = adapter.subgroupMinSize === 8 && adapter.subgroupMaxSize === 8;
  return adapter.kind === "software" && eight && features.has("subgroups") ? "broadcast" : "storage";
}
