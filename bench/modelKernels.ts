/** Which kernels a model's steps may use on an adapter: what must be proved before the model is timed. */
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel } from "../device/pipelines.ts";
import { MAX_ROWS } from "../engine/batch.ts";
import { KV_TYPES, type KvType } from "../kernels/attention/kv_types.ts";
import { paddedCols } from "../kernels/formats/layout.ts";
import { LAYOUT_NAMES } from "../kernels/formats/layouts.ts";
import { headDimFor, LATENT_WIDTHS } from "../kernels/fragments/batch.ts";
import { xFromName } from "../kernels/fragments/matmul.ts";
import { everyKernel } from "../kernels/kernelList.ts";
import { narrowOf, type Precision, queriesFor, xFrom } from "../kernels/xFrom.ts";
import type { Matrix } from "../models/matrix.ts";
import type { PagesDeclaration, StateDeclaration } from "../models/model.ts";
import { matmulWay } from "../models/step.ts";

/** What decides it. */
export interface KernelNeeds {
  readonly matrices: readonly Pick<Matrix, "layout" | "cols">[];
  readonly caches: readonly (
    | Pick<PagesDeclaration, "kind" | "headDim" | "valueDim">
    | Pick<StateDeclaration, "kind">
  )[];
  readonly kvType: KvType;
  readonly precision: Precision;
  readonly gpu: Pick<Gpu, "adapter" | "features" | "off">;
  /** Kernels that the model's first steps launched: those that none of them had any of are not the model's. */
  readonly launched: ReadonlySet<string>;
}

/** Families of kernels that the first steps need not show: keys that are split, and rows that are picked. */
const LATER = /^(attention_reduce|attention_paged|attention_fused|attention_row|rope_kv|pick_rows)$/;

/** Every kernel of kernelList.ts that is of the model's families, and not of another layout, KV type, head size or number of rows. */
export function modelKernels({ matrices, caches, kvType, precision, gpu, launched }: KernelNeeds): CompiledKernel[] {
  const layouts = new Set<string>(matrices.map(({ layout }) => layout));
  const ways = matmulWays(gpu, matrices);
  // Of latents values have no length of their own.
  const pages = caches.flatMap((cache) => (cache.kind === "pages" ? cache : []));
  const isLatent = ({ valueDim }: (typeof pages)[number]) => valueDim === 0;
  const heads = new Set(pages.filter((it) => !isLatent(it)).map(({ headDim }) => `head_dim<=${headDimFor(headDim)}`));
  const widths = pages.filter(isLatent).map(({ headDim }) => LATENT_WIDTHS.find((most) => headDim <= most));
  // Σ x is added up in the matmul only where attention, or what is in its place, leaves no whole sums of 32.
  const ownSums = pages.some((it) => isLatent(it) || it.headDim % 32 !== 0) || launched.has("delta_rule");
  const layoutsOf = matrices.map(({ layout }) => layout);
  const families = new Set(Array.from(launched, (name) => name.split(" ")[0]));
  return everyKernel().filter(({ name }) => {
    const [family = "", ...words] = name.split(" ");
    if (!families.has(family) && !LATER.test(family)) return false;
    if (family === "log_probs" || family === "repack") return false; // of scores and of loading, which are not timed
    if (name.includes(" own sums") && !ownSums) return false;
    const layout = LAYOUT_NAMES.find((it) => words.includes(it));
    if (layout !== undefined && words.some((word) => word.startsWith("M="))) {
      const narrow = narrowOf(precision, layout);
      if (name.includes(" own sums") && narrow !== null) return false;
      const way = words.find((word) => word.startsWith("M="));
      if (!ways.has(`${way} ${narrow === null ? xFromName(name) : xFrom(gpu)}`)) return false;
      if (narrow !== null && xFromName(name) !== narrow) return false;
    }
    if (family === "narrow") return words.some((word) => layoutsOf.some((it) => narrowOf(precision, it) === word));
    if (
      /^attention_(fused|row|paged)$|^latent_attention$/.test(family) &&
      name.endsWith(" broadcast") !== (queriesFor(gpu) === "broadcast")
    )
      return false;
    const attention = /^(attention|rope)_|^latent_(attention|kv)$/.test(family);
    return words.every((word) => {
      if (attention && KV_TYPES.some((type) => type === word)) return word === kvType;
      if (LAYOUT_NAMES.some((layout) => layout === word)) return layouts.has(word);
      if (word.startsWith("width<=")) return widths.some((width) => word === `width<=${width}`);
      return !word.startsWith("head_dim<=") || heads.has(word);
    });
  });
}

/** Rows at once and ways of x that steps of some number of rows may choose for the matrices. */
function matmulWays(gpu: KernelNeeds["gpu"], matrices: KernelNeeds["matrices"]): Set<string> {
  const strides = new Set(matrices.map(({ cols }) => paddedCols(cols)));
  const counts = Array.from({ length: Math.log2(MAX_ROWS) + 1 }, (_, i) => 2 ** i);
  const ways = [...strides].flatMap((stride) => counts.map((rows) => matmulWay(gpu, { rows, stride })));
  return new Set(ways.map(({ from, m }) => `M=${m} ${from}`));
}
