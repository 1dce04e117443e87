/**
 * What is tried on an adapter before a model is used there: each one-row kernel against the CPU, those of several rows against it, bit for bit.
 *
 * Small shapes of the cases that prove the kernels. A new way of computing is a line here and a name in variantNames.ts.
 */
import type { CompiledKernel } from "../device/pipelines.ts";
import { advanceCases } from "./advance.cases.ts";
import { advance } from "./advance.ts";
import { attentionPaged, oneRowAttention } from "./attention/attention.ts";
import { attentionReduce } from "./attention/attention_reduce.ts";
import { type AttentionShape, attentionInputs, pagesWith } from "./attention/attentionData.ts";
import { caches } from "./attention/attentionReference.ts";
import { attentionCase, runAttention } from "./attention/attentionRuns.ts";
import { KV_TYPES, type KvType, PLAIN_KV_TYPES, type PlainKvType } from "./attention/kv_types.ts";
import { latentAttentionCase } from "./attention/latent_attention.cases.ts";
import { LATENT_VARIANTS, latentAttention } from "./attention/latent_attention.ts";
import { latentQueryCase } from "./attention/latent_query.cases.ts";
import { LATENT_ROWS, latentQuery } from "./attention/latent_query.ts";
import { latentValueCase } from "./attention/latent_value.cases.ts";
import { latentValue } from "./attention/latent_value.ts";
import { LATENT } from "./attention/latentData.ts";
import { ropeKv } from "./attention/rope_kv.ts";
import { ATTENTION } from "./attention/sameAttention.cases.ts";
import { QUERIES_FROM, type QueriesFrom } from "./attention/tile.ts";
import { embedCase } from "./embed.cases.ts";
import { embed } from "./embed.ts";
import type { LayoutName } from "./formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "./formats/layouts.ts";
import { HEAD_DIMS, type HeadDim, LATENT_WIDTHS, type LatentWidth, MAX_LATENT } from "./fragments/batch.ts";
import { isShared, type MatmulRows, X_FROM, type XFrom } from "./fragments/matmul.ts";
import { NARROW } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import { isWide } from "./fragments/wide.ts";
import { matmulResidual } from "./matmul_residual.ts";
import type { MatmulShape } from "./matmulData.ts";
import { matmulResidualCase, normGateUpCase, normMatmulCase } from "./matmulRuns.ts";
import { normGateUp } from "./norm_gate_up.ts";
import { normMatmul } from "./norm_matmul.ts";
import { MANY_ROWS, MATMUL_KERNELS, type MatmulKernel, sharedShape, wordsOf } from "./sameBits.cases.ts";
import { bits, equal } from "./sameWords.ts";
import { sampleCases } from "./sample.cases.ts";
import { sample } from "./sample.ts";
import type { Case } from "./testbed.ts";
import { BROADCAST, FREE_RUN, rowsVariant, WIDE } from "./variantNames.ts";

/** A case with what follows from it. */
export interface SelfTest {
  /** What it runs, on trial the first: it concerns the models that use all of them. */
  readonly kernels: readonly CompiledKernel[];
  /** What ops do without where it fails; null: nothing stands in, and the adapter is of no use. */
  readonly variant: string | null;
  /** Which of the ways of x, or of queries, its kernels are for: an adapter has one of each. Unset: it has them in any case. */
  readonly xFrom?: XFrom;
  readonly queriesFrom?: readonly QueriesFrom[];
  readonly test: Case;
}

/** All of them for matrices of these layouts, those without a stand-in first. */
export function selfTests(names: readonly LayoutName[] = LAYOUT_NAMES): SelfTest[] {
  const matmuls = names.flatMap((layout) =>
    MATMUL_KERNELS.flatMap((kernel) =>
      // Only the residual's matmul ever adds Σ x up itself, and only where groups have biases.
      (kernel === "matmul_residual" && layouts[layout].scaling === "affine" ? [true, false] : [true]).flatMap(
        (storedSums) => waysOf(layout, storedSums).map((from) => ({ kernel, layout, storedSums, from })),
      ),
    ),
  );
  const heads = KV_TYPES.flatMap((kvType) =>
    HEAD_DIMS.flatMap((headDim) =>
      QUERIES_FROM.flatMap((from) => FUSED_QUADS.map((quads) => ({ kvType, headDim, from, quads }))),
    ),
  );
  return [
    ...matmuls.map(oneRow),
    ...heads.flatMap((it) => [fusedAttention(it), pagedAttention(it)]),
    ...PLAIN_KV_TYPES.flatMap((kvType) =>
      LATENT_WIDTHS.flatMap((width) => LATENT_VARIANTS.map((it) => latents(kvType, width, it))),
    ),
    ...names.flatMap((layout) => latentRows(layout, 1)),
    ...names.map(embedding),
    sampler(),
    freeRun(),
    ...MANY_ROWS.flatMap((m) => matmuls.map((it) => manyRows(it, m))),
    ...names.flatMap((layout) => latentRows(layout, LATENT_ROWS[1])),
  ];
}

/** How x may reach the matmuls of a layout; a narrow one always has its sums. */
const waysOf = (layout: LayoutName, storedSums: boolean): readonly XFrom[] =>
  storedSums && takesNarrow(layouts[layout]) ? [...X_FROM, ...NARROW] : X_FROM;

interface MatmulChoice {
  readonly kernel: MatmulKernel;
  readonly layout: LayoutName;
  readonly storedSums: boolean;
  readonly from: XFrom;
}

const shapeOf = ({ kernel, layout, storedSums, from }: MatmulChoice): MatmulShape => ({
  ...sharedShape(kernel, layout, 1),
  delta: false,
  storedSums,
  from,
  parts: isWide(from) ? 4 : 1, // the third has less than the others, the last nothing
});

function matmulKernel({ kernel, layout, storedSums, from }: MatmulChoice, m: MatmulRows): CompiledKernel {
  if (kernel === "norm_matmul") return normMatmul(layout, m, from).compiled;
  if (kernel === "norm_gate_up") return normGateUp(layout, m, from).compiled;
  return matmulResidual(layout, m, layouts[layout].scaling === "affine" && !storedSums, from).compiled;
}

const MAKERS = { norm_matmul: normMatmulCase, matmul_residual: matmulResidualCase, norm_gate_up: normGateUpCase };

/** What a kernel is off as, so that the one that takes x from storage stands in; null: nothing does. */
const standIn = ({ from }: { readonly from: XFrom | QueriesFrom }): string | null =>
  isShared(from) ? BROADCAST : from === "wide" ? WIDE : null;

function oneRow(choice: MatmulChoice): SelfTest {
  const one = matmulKernel(choice, 1);
  const { kernel, run } = MAKERS[choice.kernel]({ ...shapeOf(choice), rows: 2 });
  const test = { kernel, title: `self_test ${one.name} against the CPU`, run };
  return { kernels: [one], variant: standIn(choice), xFrom: choice.from, test };
}

function manyRows(choice: MatmulChoice, m: MatmulRows): SelfTest {
  const [many, one] = [matmulKernel(choice, m), matmulKernel(choice, 1)];
  const run: Case["run"] = async (bed) => {
    const words = async (rows: MatmulRows) =>
      (await wordsOf(bed, choice.kernel, { ...shapeOf(choice), m: rows })).words;
    return equal([
      ["one row at once", await words(1)],
      [`${m} rows at once`, await words(m)],
    ]);
  };
  const test = { kernel: choice.kernel, title: `self_test ${many.name} against one row`, run };
  return { kernels: [many, one], variant: rowsVariant(m), xFrom: choice.from, test };
}

/** Quads of query heads that the fused kernel is compiled for. */
const FUSED_QUADS = [1, 2] as const;

interface HeadChoice {
  readonly kvType: KvType;
  readonly headDim: HeadDim;
  readonly from: QueriesFrom;
  readonly quads: (typeof FUSED_QUADS)[number];
}

/** One sequence of 271 keys among them, so that keys are split. */
const headsOf = ({ kvType, headDim, quads }: HeadChoice): AttentionShape => ({
  ...ATTENTION,
  heads: 4 * quads - 1,
  kvHeads: 1,
  headDim,
  valueDim: headDim,
  rotaryDim: headDim,
  kvType,
  past: [0, 17, 270],
  counts: [1, 1, 1],
  seed: 1,
});

const rowKernel = ({ kvType, headDim, quads, from }: HeadChoice): CompiledKernel =>
  oneRowAttention(kvType, headDim, quads, from).compiled;

function fusedAttention(choice: HeadChoice): SelfTest {
  const kernel = rowKernel(choice);
  const title = `self_test ${kernel.name} against the CPU`;
  const { run } = attentionCase(headsOf(choice));
  const test = { kernel: "attention_fused", title, run };
  const before = choice.from !== "storage" ? [ropeKv(choice.kvType, choice.headDim).compiled] : [];
  const kernels = [kernel, ...before, attentionReduce.compiled];
  return { kernels, variant: standIn(choice), queriesFrom: [choice.from], test };
}

/** A step by rope_kv and attention_paged, against the same by the kernel of one row. */
function pagedAttention(choice: HeadChoice): SelfTest {
  const { kvType, headDim, from } = choice;
  const [paged, fused] = [attentionPaged(kvType, headDim, from).compiled, rowKernel(choice)];
  const run: Case["run"] = async (bed) => {
    const shape = headsOf(choice);
    const inputs = attentionInputs(shape);
    const pages = pagesWith(shape, inputs, caches(shape, inputs).past);
    const words = async (isFused: boolean) => {
      const path = { fused: isFused, split: true, queriesFrom: from };
      const { out, pages: after } = await runAttention(bed, shape, inputs, pages, path);
      return new Uint32Array([...bits(out), ...after]);
    };
    return equal([
      ["fused", await words(true)],
      ["paged", await words(false)],
    ]);
  };
  const test = { kernel: "attention_paged", title: `self_test ${paged.name} against ${fused.name}`, run };
  const kernels = [paged, fused, ropeKv(kvType, headDim).compiled, attentionReduce.compiled];
  return { kernels, variant: standIn(choice), queriesFrom: [from], test };
}

function latents(
  kvType: PlainKvType,
  width: LatentWidth,
  { from, queriesFrom }: (typeof LATENT_VARIANTS)[number],
): SelfTest {
  const kernel = latentAttention(kvType, width, from).compiled;
  const rotaryDim = 32;
  const latent = Math.min(width - rotaryDim, MAX_LATENT);
  const rows = { past: [0, 17, 270], counts: [1, 1, 1] };
  const { run } = latentAttentionCase({ ...LATENT, ...rows, kvType, latent, rotaryDim, queriesFrom: from, seed: 1 });
  const test = { kernel: "latent_attention", title: `self_test ${kernel.name} against the CPU`, run };
  return { kernels: [kernel, attentionReduce.compiled], variant: standIn({ from }), queriesFrom, test };
}

/** Queries and values of latents: one row against the CPU, more against one. */
function latentRows(layout: LayoutName, rows: (typeof LATENT_ROWS)[number]): SelfTest[] {
  const shape = { ...LATENT, layout, past: [3], counts: [6], ways: [rows], seed: 1 };
  const tests = [
    { family: "latent_query", kernel: latentQuery, run: latentQueryCase(shape).run },
    { family: "latent_value", kernel: latentValue, run: latentValueCase(shape).run },
  ];
  return tests.map(({ family, kernel, run }): SelfTest => {
    const [many, one] = [kernel(layout, rows).compiled, kernel(layout, 1).compiled];
    const title = `self_test ${many.name} against ${rows > 1 ? "one row" : "the CPU"}`;
    const test = { kernel: family, title, run };
    if (rows === 1) return { kernels: [one], variant: null, test };
    return { kernels: [many, one], variant: rowsVariant(rows), test };
  });
}

function embedding(layout: LayoutName): SelfTest {
  const shape = { group: 64, scaleType: "f16", vocab: 40, cols: 320, rows: 3, firstRow: 0, endRow: 40 } as const;
  return {
    kernels: [embed(layout).compiled],
    variant: null,
    test: embedCase({ ...shape, layout, multiplier: 1, seed: 1 }),
  };
}

function sampler(): SelfTest {
  const [test] = sampleCases(16, 1).slice(-1); // temperature, top-k, top-p and min-p together
  if (test === undefined) throw new RangeError("self-tests: no case of the sampler");
  return { kernels: [sample.compiled], variant: null, test };
}

function freeRun(): SelfTest {
  const [test] = advanceCases(2, 1).slice(-1);
  if (test === undefined) throw new RangeError("self-tests: no case of free runs");
  return { kernels: [advance.compiled], variant: FREE_RUN, test };
}
