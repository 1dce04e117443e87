/** Every kernel there is, all variants: what a report hashes, what tests hold to the rules. */
import type { CompiledKernel } from "../device/pipelines.ts";
import { actMul } from "./act_mul.ts";
import { activateRows } from "./activate.ts";
import { adjust } from "./adjust.ts";
import { advance } from "./advance.ts";
import { attentionFused, attentionPaged, attentionRow } from "./attention/attention.ts";
import { attentionReduce } from "./attention/attention_reduce.ts";
import { KV_TYPES, PLAIN_KV_TYPES } from "./attention/kv_types.ts";
import { latentAttention } from "./attention/latent_attention.ts";
import { latentKv } from "./attention/latent_kv.ts";
import { LATENT_ROWS, latentQuery } from "./attention/latent_query.ts";
import { latentValue } from "./attention/latent_value.ts";
import { qkNorm } from "./attention/qk_norm.ts";
import { ropeKv } from "./attention/rope_kv.ts";
import { QUERIES_FROM } from "./attention/tile.ts";
import { embed } from "./embed.ts";
import { LAYOUT_NAMES, layouts } from "./formats/layouts.ts";
import { HEAD_DIMS, LATENT_WIDTHS } from "./fragments/batch.ts";
import { MATMUL_ROWS, X_FROM } from "./fragments/matmul.ts";
import { NARROW } from "./fragments/narrow_activation.ts";
import { takesNarrow } from "./fragments/narrow_dot.ts";
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

/** In a fixed order. */
export function everyKernel(): CompiledKernel[] {
  const matmuls = LAYOUT_NAMES.flatMap((layout) =>
    MATMUL_ROWS.flatMap((rows) =>
      X_FROM.flatMap((from) => [
        normMatmul(layout, rows, from),
        normGateUp(layout, rows, from),
        ...[false, ...(layouts[layout].scaling === "affine" ? [true] : [])].map((ownSums) =>
          matmulResidual(layout, rows, ownSums, from),
        ),
      ]),
    ),
  );
  const narrowMatmuls = LAYOUT_NAMES.filter((layout) => takesNarrow(layouts[layout])).flatMap((layout) =>
    MATMUL_ROWS.flatMap((rows) =>
      NARROW.flatMap((from) => [
        normMatmul(layout, rows, from),
        normGateUp(layout, rows, from),
        matmulResidual(layout, rows, false, from),
      ]),
    ),
  );
  const attention = HEAD_DIMS.flatMap((headDim) =>
    KV_TYPES.flatMap((kvType) => [
      ...([1, 2] as const).flatMap((quads) => [
        attentionFused(kvType, headDim, quads),
        attentionRow(kvType, headDim, quads),
      ]),
      ...QUERIES_FROM.map((from) => attentionPaged(kvType, headDim, from)),
      ropeKv(kvType, headDim),
    ]),
  );
  const experts = LAYOUT_NAMES.flatMap((layout) => [
    router(layout),
    ...[false, true].map((tiled) => expertGateUp(layout, tiled)),
    expertDown(layout),
    expertDownSum(layout),
  ]);
  const latent = [
    ...PLAIN_KV_TYPES.flatMap((kvType) => [
      ...LATENT_WIDTHS.flatMap((width) => QUERIES_FROM.map((from) => latentAttention(kvType, width, from))),
      latentKv(kvType),
    ]),
    ...LAYOUT_NAMES.flatMap((layout) =>
      LATENT_ROWS.flatMap((rows) => [latentQuery(layout, rows), latentValue(layout, rows)]),
    ),
    padRows,
  ];
  const others = [
    repack,
    ...NARROW.map((narrow) => narrowActivation(narrow)),
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
  ];
  return [
    ...matmuls,
    ...narrowMatmuls,
    ...attention,
    ...LAYOUT_NAMES.map((layout) => embed(layout)),
    ...experts,
    ...latent,
    ...others,
  ].map(({ compiled }) => compiled);
}
