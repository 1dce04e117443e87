/**
 * The one list of kernel cases: for tests, for `ingle kernels`, for pages and for timing.
 *
 * Seeds of a list never change its neighbours': a title names the same numbers for ever.
 */
import { actMulCases } from "./act_mul.cases.ts";
import { activateCases } from "./activate.cases.ts";
import { adjustCases, realAdjustCases } from "./adjust.cases.ts";
import { advanceCases } from "./advance.cases.ts";
import {
  attentionCases,
  attentionOptionCases,
  extremeScaleCases,
  realAttentionCases,
} from "./attention/attention.cases.ts";
import { latentCases, realLatentCases } from "./attention/latent.cases.ts";
import { scaledSameAttentionCases } from "./attention/sameAttention.cases.ts";
import { embedCases, positionCases, realEmbedCases } from "./embed.cases.ts";
import type { LayoutName } from "./formats/layout.ts";
import { LAYOUT_NAMES } from "./formats/layouts.ts";
import { MATMUL_ROWS } from "./fragments/matmul.ts";
import { logProbsCases, realLogProbsCases } from "./log_probs.cases.ts";
import {
  edgeMatmulCases,
  groupCases,
  type MatmulVariant,
  matmulCases,
  narrowMatmulCases,
  normMatmulCases,
  realMatmulCases,
  wideMatmulCases,
} from "./matmul.cases.ts";
import { expertCases, realExpertCases, sameExpertsCases } from "./moe/experts.cases.ts";
import { realRouterCases, routerCases } from "./moe/router.cases.ts";
import { narrowCases } from "./narrow.cases.ts";
import { normCases, realNormCases } from "./norm.cases.ts";
import { permuteCases } from "./permute.cases.ts";
import { pickRowsCases } from "./pick_rows.cases.ts";
import { MANY_ROWS, narrowSameBitsCases, sameBitsCases, sameNormCases, wideSameBitsCases } from "./sameBits.cases.ts";
import {
  adjustedSampleCases,
  extremeSampleCases,
  greedySampleCases,
  realSampleCases,
  sampleCases,
  typicalSampleCases,
} from "./sample.cases.ts";
import { softcapCases } from "./softcap.cases.ts";
import { deltaRuleCases, realDeltaRuleCases } from "./state/delta_rule.cases.ts";
import { sameStateCases } from "./state/sameStates.cases.ts";
import { realShortConvCases, shortConvCases } from "./state/short_conv.cases.ts";
import type { Case } from "./testbed.ts";
import { verifyCases } from "./verify.cases.ts";

const MAIN_LAYOUTS: readonly LayoutName[] = ["f32", "f16", "bf16", "affine4", "affine8"];
/** Layouts that differ from affine4 and affine8 in their decoding alone: seen through one kernel at one row in the lean suite. */
const DECODED_ONLY: readonly LayoutName[] = LAYOUT_NAMES.filter((name) => !MAIN_LAYOUTS.includes(name));
/** Every main layout at M = 1 and 8 (but for LEFT_OUT), two of them at 2 and 4 as well: pipelines are what costs on software adapters. */
const FEW: readonly MatmulVariant[] = MAIN_LAYOUTS.flatMap((layout): MatmulVariant[] =>
  layout === "f16" || layout === "affine4"
    ? MATMUL_ROWS.map((m): MatmulVariant => [layout, m])
    : [
        [layout, 1],
        [layout, 8],
      ],
);
/** What stands for all of them where a kernel only decodes. */
const FEW_LAYOUTS: readonly LayoutName[] = ["f16", "affine4"];
/** Of these, not in the lean suite: what differs from f16 in its decoding alone, at eight rows. Wide kernels have their place among its pipelines. */
const LEFT_OUT = / (f32|bf16) M=\d+\/8 /;
/** Nor long heads of f32, which differ from short ones in their workgroup's memory: int8 has their place. */
const LONG_F32_HEADS = /^attention_\w+ f32 .*head_dim=(80|96|128) /;
/** Of int8, in the lean suite: heads up to 64, groups up to eight, and where scales end. */
const FEW_INT8 = /int8 (window=none|253\+6) | spread=(0|1e\+30) | rows=256\+1 (interleaved,padding=1|split,padding=2) /;
/** Of wide workgroups, in the lean suite. */
const FEW_WIDE: readonly MatmulVariant[] = [
  ["affine4", 1],
  ["affine4", 8],
];
const EVERY: readonly MatmulVariant[] = LAYOUT_NAMES.flatMap((layout) =>
  MATMUL_ROWS.map((m): MatmulVariant => [layout, m]),
);

/** Some 510 cases that meet every kernel, layout, number of rows and KV type: for each `npm test` and for pages. */
export function namedCases(): Case[] {
  return [
    ...matmulCases(FEW, 3, 1).filter(({ title }) => !LEFT_OUT.test(title)),
    ...attentionCases(70, 1).filter(({ title }) => !LONG_F32_HEADS.test(title)),
    ...embedCases(20, 1),
    ...pickRowsCases(6, 1),
    ...sampleCases(45, 1),
    ...greedySampleCases(90_001),
    ...extremeSampleCases(100_001),
    ...logProbsCases(24, 1),
    ...sameBitsCases(["f16", "affine4"], MANY_ROWS, 1),
    ...attentionOptionCases(200_001).filter(({ title }) => !LONG_F32_HEADS.test(title)),
    ...routerCases(24, 1, FEW_LAYOUTS),
    ...expertCases(11, 1, FEW_LAYOUTS),
    ...sameExpertsCases(FEW_LAYOUTS, 1),
    ...normMatmulCases(DECODED_ONLY, 4, 110_001),
    ...groupCases(120_001),
    ...actMulCases(6, 1),
    ...permuteCases(6, 1),
    ...normCases(10, 1),
    ...sameNormCases(130_001),
    ...activateCases(7, 1),
    ...softcapCases(2, 1),
    ...shortConvCases(5, 1),
    ...deltaRuleCases(5, 1),
    ...sameStateCases(150_001),
    ...positionCases(3_001),
    ...narrowCases(3, 1),
    ...latentCases(210_001, ["affine4"]),
    ...wideMatmulCases(FEW_WIDE, 1, 150_051),
    ...wideSameBitsCases(["affine4"], [8], 160_001),
    ...adjustCases(8, 1),
    ...typicalSampleCases(5, 110_001),
    ...adjustedSampleCases(["masked", "ties"], 120_001),
    ...int8Cases().filter(({ title }) => FEW_INT8.test(title)),
  ];
}

/** More than 1,000: the named ones, every variant of the matmuls, edges, and the shapes of real models. */
export function allCases(): Case[] {
  return [
    ...namedCases(),
    ...matmulCases(FEW, 3, 1).filter(({ title }) => LEFT_OUT.test(title)),
    ...matmulCases(EVERY, 6, 1_001),
    ...edgeMatmulCases(EVERY, 2_001),
    ...realMatmulCases(EVERY, 3_001),
    ...attentionCases(200, 1_001),
    ...realAttentionCases(2_001),
    ...embedCases(60, 1_001),
    ...realEmbedCases(2_001),
    ...pickRowsCases(20, 1_001),
    ...sampleCases(136, 1_001),
    ...verifyCases(60, 1_001),
    ...realSampleCases(2_001),
    ...logProbsCases(48, 1_001),
    ...realLogProbsCases(2_001),
    ...sameBitsCases(
      LAYOUT_NAMES.filter((layout) => layout !== "f16" && layout !== "affine4"),
      MANY_ROWS,
      1_001,
    ),
    ...routerCases(60, 1_001),
    ...realRouterCases(2_001),
    ...expertCases(30, 1_001),
    ...realExpertCases(2_001),
    ...sameExpertsCases(
      LAYOUT_NAMES.filter((layout) => !FEW_LAYOUTS.includes(layout)),
      1_001,
    ),
    ...normCases(40, 1_001),
    ...realNormCases(2_001),
    ...activateCases(21, 1_001),
    ...softcapCases(6, 1_001),
    ...shortConvCases(30, 1_001),
    ...realShortConvCases(2_001),
    ...deltaRuleCases(25, 1_001),
    ...realDeltaRuleCases(2_001),
    ...narrowCases(28, 1_001),
    ...narrowMatmulCases(EVERY, 2, 130_001),
    ...narrowSameBitsCases(LAYOUT_NAMES, 140_001),
    ...latentCases(211_001, ["f32", "affine8", "f16", "bf16"]),
    ...realLatentCases(212_001),
    ...wideMatmulCases(EVERY, 3, 151_001),
    ...realMatmulCases(FEW_WIDE, 155_001, "wide"),
    ...wideSameBitsCases(LAYOUT_NAMES, MANY_ROWS, 161_001, true),
    ...adjustCases(48, 1_001),
    ...realAdjustCases(2_001),
    ...typicalSampleCases(56, 111_001),
    ...adjustedSampleCases(["normal", "great"], 121_001),
    ...[...attentionCases(70, 1), ...attentionOptionCases(200_001)].filter(({ title }) => LONG_F32_HEADS.test(title)),
    ...int8Cases().filter(({ title }) => !FEW_INT8.test(title)),
    ...advanceCases(40, 1_001),
  ];
}

/** Attention over keys and values with scales. */
const int8Cases = (): Case[] => [
  ...attentionCases(60, 220_001, ["int8"]),
  ...attentionOptionCases(221_001, ["int8"]),
  ...extremeScaleCases(222_001),
  ...realAttentionCases(223_001, ["int8"]),
  ...scaledSameAttentionCases(224_001),
];

/** The case of a title, e.g. of a report. Throws RangeError where there is none. */
export function findCase(title: string): Case {
  const found = allCases().find((it) => it.title === title);
  if (found === undefined)
    throw new RangeError(`kernel cases: none is titled "${title}"; list them with \`ingle kernels --list\``);
  return found;
}
