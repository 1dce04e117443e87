/** The table of layouts: every matmul's cases loop over it, so a new layout is tested by adding a row. */
import { affine4 } from "./affine4.ts";
import { affine8 } from "./affine8.ts";
import { f32 } from "./f32.ts";
import { bf16, f16 } from "./half_layouts.ts";
import type { Layout, LayoutName } from "./layout.ts";

/** The layouts by name. */
export const layouts: Readonly<Record<LayoutName, Layout>> = { f32, f16, bf16, affine4, affine8 };
/** Their names, in the table's order. */
export const LAYOUT_NAMES = Object.keys(layouts) as LayoutName[];
