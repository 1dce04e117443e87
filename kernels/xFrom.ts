/** Which way x reaches the lanes of a matmul: by the device, and by the precision that was asked for. */
import type { Gpu } from "../device/gpu.ts";
import type { QueriesFrom } from "./attention/tile.ts";
import type { LayoutName } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { isShared, type XFrom } from "./fragments/matmul.ts";
import type { Narrow } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import { BROADCAST, WIDE } from "./variantNames.ts";

/** Of activations and products in matmuls; sums of groups are f32 in all of them. */
export const PRECISIONS = ["f32", "f16", "int8"] as const;
export type Precision = (typeof PRECISIONS)[number];

const NARROW_OF: Readonly<Record<Precision, Narrow | null>> = { f32: null, f16: "halves", int8: "bytes" };

/** What a device must have for narrow matmuls, as WebGPU calls it: a feature, or a language feature of WGSL. */
export const NARROW_NEEDS: Readonly<Record<Narrow, string>> = {
  bytes: "packed_4x8_integer_dot_product",
  halves: "shader-f16",
};

type Device = Pick<Gpu, "adapter" | "features">;

/**
 * One way for all matmuls of a device, since a wide one may add in another order: by its kind. fragments/matmul.ts and wide.ts say when which
 * is faster.
 */
export function xFrom({ adapter, features, off }: Device & Pick<Gpu, "off">): XFrom {
  if (adapter.kind === "hardware") return off.has(WIDE) ? "storage" : "wide";
  if (adapter.subgroupMinSize !== adapter.subgroupMaxSize || !features.has("subgroups") || off.has(BROADCAST))
    return "storage";
  return adapter.subgroupMinSize === 8 ? "broadcast" : adapter.subgroupMinSize === 4 ? "broadcast4" : "storage";
}

/** How queries reach the lanes of attention. Any choice gives the same bits. */
export function queriesFor(gpu: Device & Pick<Gpu, "off">): QueriesFrom {
  const from = xFrom(gpu);
  return isShared(from) ? from : "storage";
}

/** What a precision makes of the activations before a matmul of a layout; null: nothing, it stays in f32. */
export function narrowOf(precision: Precision, layout: LayoutName): Narrow | null {
  return takesNarrow(layouts[layout]) ? NARROW_OF[precision] : null;
}

/** Whether a device has a feature, of its own or of WGSL. */
export const has = ({ adapter, features }: Device, need: string): boolean =>
  features.has(need) || adapter.languageFeatures.includes(need);

/** What a device lacks for a precision, or null. */
export function missingFor(gpu: Device, precision: Precision): string | null {
  const narrow = NARROW_OF[precision];
  return narrow === null || has(gpu, NARROW_NEEDS[narrow]) ? null : NARROW_NEEDS[narrow];
}
