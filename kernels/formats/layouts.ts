/** The table of layouts: every matmul's cases loop over it, so a new layout is tested by adding a row. */
import { affine2, affine3, affine4, affine5, affine6, affine8 } from "./affine.ts";
import { codebook4 } from "./codebook4.ts";
import { e2m1 } from "./e2m1.ts";
import { e4m3 } from "./e4m3.ts";
import { f32 } from "./f32.ts";
import { bf16, f16 } from "./half_layouts.ts";
import type { Layout, LayoutName } from "./layout.ts";

/** The layouts by name. */
export const layouts: Readonly<Record<LayoutName, Layout>> = {
  f32,
  f16,
  bf16,
  affine4,
  affine8,
  affine2,
  affine3,
  affine5,
  affine6,
  e2m1,
  e4m3,
  codebook4,
};
/** Their names, in the table's order. */
export const LAYOUT_NAMES = Object.keys(layouts) as LayoutName[];
