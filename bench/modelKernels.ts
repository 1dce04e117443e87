/** Which kernels a model's steps may use on an adapter: what must be proved before the model is timed. */
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel } from "../device/pipelines.ts";
import { MAX_ROWS } from "../engine/batch.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import { paddedCols } from "../kernels/formats/layout.ts";
import { headDimFor, LATENT_WIDTHS } from "../kernels/fragments/batch.ts";
import { familyOf } from "../kernels/kernel.ts";
import { kernelList, type ListedKernel } from "../kernels/kernelList.ts";
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
const LATER = ["attention_reduce", "attention_paged", "attention_fused", "attention_row", "rope_kv", "pick_rows"];
/** Those of scores and of loading, which are not timed. */
const UNTIMED = ["log_probs", "repack"];

type Fits = (kernel: ListedKernel) => boolean;

/** Every kernel of kernelList.ts that is of the model's families, and not of another layout, KV type, head size or number of rows. */
export function modelKernels(needs: KernelNeeds): CompiledKernel[] {
  const families = new Set([...Array.from(needs.launched, familyOf), ...LATER]);
  for (const family of UNTIMED) families.delete(family);
  const fits = [fitsMatrices(needs), fitsMatmuls(needs), fitsCaches(needs)];
  return kernelList()
    .filter((kernel) => families.has(kernel.family) && fits.every((it) => it(kernel)))
    .map(({ compiled }) => compiled);
}

/** Whether there are matrices of its layout, or activations of its kind are made for them. */
function fitsMatrices({ matrices, precision }: KernelNeeds): Fits {
  const layouts = new Set(matrices.map(({ layout }) => layout));
  const narrow = new Set(Array.from(layouts, (layout) => narrowOf(precision, layout)));
  return (kernel) =>
    (kernel.layout === undefined || layouts.has(kernel.layout)) &&
    (kernel.narrow === undefined || narrow.has(kernel.narrow));
}

/** Whether steps take x to a matmul so, and of so many rows at once. */
function fitsMatmuls({ matrices, caches, precision, gpu, launched }: KernelNeeds): Fits {
  const ways = matmulWays(gpu, matrices);
  // Σ x is added up in the matmul only where attention, or what is in its place, leaves no whole sums of 32.
  const someOwnSums =
    caches.some((cache) => cache.kind === "pages" && (isLatent(cache) || cache.headDim % 32 !== 0)) ||
    launched.has("delta_rule");
  return ({ layout, matmul }) => {
    if (layout === undefined || matmul === undefined) return true;
    const { rows, from, ownSums } = matmul;
    const narrow = narrowOf(precision, layout); // whose sums are always stored, and whose rows are as many as in f32
    if (ownSums && (!someOwnSums || narrow !== null)) return false;
    return narrow === null ? ways(rows, from) : from === narrow && ways(rows, xFrom(gpu));
  };
}

/** Whether keys and values lie so in the model's pages, and queries reach lanes so. */
function fitsCaches({ caches, kvType, gpu }: KernelNeeds): Fits {
  const pages = caches.flatMap((cache) => (cache.kind === "pages" ? cache : []));
  const heads = new Set(pages.filter((it) => !isLatent(it)).map(({ headDim }) => headDimFor(headDim)));
  const widths = new Set(
    pages.filter(isLatent).map(({ headDim }) => LATENT_WIDTHS.find((longest) => headDim <= longest)),
  );
  const queries = queriesFor(gpu);
  return (kernel) =>
    (kernel.kvType === undefined || kernel.kvType === kvType) &&
    (kernel.headDim === undefined || heads.has(kernel.headDim)) &&
    (kernel.width === undefined || widths.has(kernel.width)) &&
    (kernel.queriesFrom === undefined || kernel.queriesFrom.includes(queries));
}

/** Of latents values have no length of their own. */
const isLatent = ({ valueDim }: Pick<PagesDeclaration, "valueDim">): boolean => valueDim === 0;

/** Rows at once and ways of x that steps of some number of rows may choose for the matrices. */
function matmulWays(gpu: KernelNeeds["gpu"], matrices: KernelNeeds["matrices"]) {
  const strides = new Set(matrices.map(({ cols }) => paddedCols(cols)));
  const counts = Array.from({ length: Math.log2(MAX_ROWS) + 1 }, (_, i) => 2 ** i);
  const ways = [...strides].flatMap((stride) => counts.map((rows) => matmulWay(gpu, { rows, stride })));
  return (rows: number, from: string) => ways.some((way) => way.m === rows && way.from === from);
}
