/** Every kernel there is, all variants, with what each is compiled for: what a report hashes, what tests hold to the rules. */
import type { CompiledKernel } from "../device/pipelines.ts";
import { actMul } from "./act_mul.ts";
import { activateRows } from "./activate.ts";
import { adjust } from "./adjust.ts";
import { advance } from "./advance.ts";
import { attentionPaged, oneRowAttention } from "./attention/attention.ts";
import { attentionReduce } from "./attention/attention_reduce.ts";
import { KV_TYPES, type KvType, PLAIN_KV_TYPES } from "./attention/kv_types.ts";
import { LATENT_VARIANTS, latentAttention } from "./attention/latent_attention.ts";
import { latentKv } from "./attention/latent_kv.ts";
import { LATENT_ROWS, latentQuery } from "./attention/latent_query.ts";
import { latentValue } from "./attention/latent_value.ts";
import { qkNorm } from "./attention/qk_norm.ts";
import { ropeKv } from "./attention/rope_kv.ts";
import { QUERIES_FROM, type QueriesFrom } from "./attention/tile.ts";
import { embed } from "./embed.ts";
import type { LayoutName } from "./formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "./formats/layouts.ts";
import { HEAD_DIMS, type HeadDim, LATENT_WIDTHS, type LatentWidth } from "./fragments/batch.ts";
import { MATMUL_ROWS, type MatmulRows, X_FROM, type XFrom } from "./fragments/matmul.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
import { familyOf } from "./kernel.ts";
import { logProbs } from "./log_probs.ts";
import { matmulResidual } from "./matmul_residual.ts";
import { expertDown } from "./moe/expert_down.ts";
import { expertDownSum } from "./moe/expert_down_sum.ts";
import { expertGateUp } from "./moe/expert_gate_up.ts";
import { expertLists } from "./moe/expert_lists.ts";
import { expertSum } from "./moe/expert_sum.ts";
import { router } from "./moe/router.ts";
import { narrowActivation } from "./narrow.ts";
import { norm } from "./norm.ts";
import { normGateUp } from "./norm_gate_up.ts";
import { normMatmul } from "./norm_matmul.ts";
import { padRows } from "./pad_rows.ts";
import { permute } from "./permute.ts";
import { pickRows } from "./pick_rows.ts";
import { repack } from "./repack.ts";
import { sample } from "./sample.ts";
import { softcap } from "./softcap.ts";
import { deltaRule } from "./state/delta_rule.ts";
import { shortConv } from "./state/short_conv.ts";
import { verify } from "./verify.ts";

/** What a variant of a kernel is compiled for; what is left out does not concern it. */
interface Variant {
  readonly layout?: LayoutName;
  /** Of a fused matmul: rows of x at once, how x reaches its lanes, whether it adds up Σ x itself. */
  readonly matmul?: { readonly rows: MatmulRows; readonly from: XFrom; readonly ownSums: boolean };
  readonly kvType?: KvType;
  /** The longest head, and the longest key of latents, that it has room for. */
  readonly headDim?: HeadDim;
  readonly width?: LatentWidth;
  readonly queriesFrom?: readonly QueriesFrom[];
  /** Of what makes activations narrow: what it makes them. */
  readonly narrow?: Narrow;
}

/** A kernel with what it is compiled for. */
export interface ListedKernel extends Variant {
  readonly compiled: CompiledKernel;
  readonly family: string;
}

const listed = ({ compiled }: { readonly compiled: CompiledKernel }, variant: Variant = {}): ListedKernel => ({
  compiled,
  family: familyOf(compiled.name),
  ...variant,
});

/** All of them, in a fixed order. */
export const kernelList = (): ListedKernel[] => [
  ...f32Matmuls(),
  ...narrowMatmuls(),
  ...attentions(),
  ...LAYOUT_NAMES.map((layout) => listed(embed(layout), { layout })),
  ...experts(),
  ...latents(),
  ...others(),
];

/** The kernels of `kernelList` alone. */
export const everyKernel = (): CompiledKernel[] => kernelList().map(({ compiled }) => compiled);

const f32Matmuls = (): ListedKernel[] =>
  LAYOUT_NAMES.flatMap((layout) =>
    MATMUL_ROWS.flatMap((rows) =>
      X_FROM.flatMap((from) => matmuls(layout, rows, from, layouts[layout].scaling === "affine")),
    ),
  );

const narrowMatmuls = (): ListedKernel[] =>
  LAYOUT_NAMES.filter((layout) => takesNarrow(layouts[layout])).flatMap((layout) =>
    MATMUL_ROWS.flatMap((rows) => NARROW.flatMap((from) => matmuls(layout, rows, from, false))),
  );

function matmuls(layout: LayoutName, rows: MatmulRows, from: XFrom, mayAddSums: boolean): ListedKernel[] {
  const variant = (ownSums: boolean): Variant => ({ layout, matmul: { rows, from, ownSums } });
  return [
    listed(normMatmul(layout, rows, from), variant(false)),
    listed(normGateUp(layout, rows, from), variant(false)),
    ...(mayAddSums ? [false, true] : [false]).map((ownSums) =>
      listed(matmulResidual(layout, rows, ownSums, from), variant(ownSums)),
    ),
  ];
}

const attentions = (): ListedKernel[] =>
  HEAD_DIMS.flatMap((headDim) =>
    KV_TYPES.flatMap((kvType) => [
      ...([1, 2] as const).flatMap((quads) => [
        ...QUERIES_FROM.map((queriesFrom) =>
          listed(oneRowAttention(kvType, headDim, quads, queriesFrom), { kvType, headDim, queriesFrom: [queriesFrom] }),
        ),
      ]),
      ...QUERIES_FROM.map((queriesFrom) =>
        listed(attentionPaged(kvType, headDim, queriesFrom), { kvType, headDim, queriesFrom: [queriesFrom] }),
      ),
      listed(ropeKv(kvType, headDim), { kvType, headDim }),
    ]),
  );

const experts = (): ListedKernel[] =>
  LAYOUT_NAMES.flatMap((layout) =>
    [
      router(layout),
      ...[false, true].map((tiled) => expertGateUp(layout, tiled)),
      expertDown(layout),
      expertDownSum(layout),
    ].map((kernel) => listed(kernel, { layout })),
  );

const latents = (): ListedKernel[] => [
  ...PLAIN_KV_TYPES.flatMap((kvType) => [
    ...LATENT_WIDTHS.flatMap((width) =>
      LATENT_VARIANTS.map(({ from, queriesFrom }) =>
        listed(latentAttention(kvType, width, from), { kvType, width, queriesFrom }),
      ),
    ),
    listed(latentKv(kvType), { kvType }),
  ]),
  ...LAYOUT_NAMES.flatMap((layout) =>
    LATENT_ROWS.flatMap((rows) =>
      [latentQuery(layout, rows), latentValue(layout, rows)].map((kernel) => listed(kernel, { layout })),
    ),
  ),
  listed(padRows),
];

const others = (): ListedKernel[] => [
  listed(repack),
  ...NARROW.map((narrow) => listed(narrowActivation(narrow), { narrow })),
  ...[
    actMul,
    permute,
    pickRows,
    norm,
    activateRows,
    softcap,
    adjust,
    advance,
    sample,
    verify,
    logProbs,
    qkNorm,
    attentionReduce,
    expertLists,
    expertSum,
    shortConv,
    deltaRule,
  ].map((kernel) => listed(kernel)),
];
