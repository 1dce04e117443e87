/** Cases of attention: shapes at random, every option of a family, the ends of scales, and real heads. */
import { type Case, Random } from "../testbed.ts";
import { type AttentionShape, PLAIN_ATTENTION } from "./attentionData.ts";
import { attentionCase } from "./attentionRuns.ts";
import { type KvType, PLAIN_KV_TYPES } from "./kv_types.ts";

/** `count` random shapes: fused and paged, KV types by turns, one to three sequences. */
export function attentionCases(count: number, firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const kvType = kvTypes[Math.floor(i / 2) % kvTypes.length] ?? "f16";
    return attentionCase(randomShape(i, kvType, firstSeed + i));
  });
}

function randomShape(index: number, kvType: KvType, seed: number): AttentionShape {
  const random = new Random(seed * 104729);
  const kvHeads = random.pick([1, 2, 3]);
  const headDim = random.pick([8, 16, 24, 32, 48, 64, 80, 128]);
  const long = random.next() < 0.15;
  const sequences = long ? 1 : 1 + random.below(3);
  const fused = index % 2 === 0;
  const past = Array.from({ length: sequences }, () =>
    random.pick(long ? [255, 256, 300, 520] : [0, 1, 15, 16, 31, 33, 63, 70]),
  );
  return {
    kvType,
    heads: kvHeads * random.pick([1, 2, 3, 4, 5, 8]),
    kvHeads,
    headDim,
    valueDim: headDim,
    rotaryDim: random.next() < 0.7 ? headDim : Math.max(2, 2 * Math.floor(headDim / 8)),
    interleaved: random.next() < 0.2,
    norm: random.next() < 0.3 ? "rms" : "none",
    sinks: random.next() < 0.25,
    softcap: random.next() < 0.2 ? 10 : 0,
    clip: 0,
    gated: false,
    window: random.next() < 0.3 ? random.pick([1, 8, 16, 17, 40]) : null,
    past,
    counts: past
      .map(() => (fused ? 1 : 1 + random.below(5)))
      .map((count, i) => (!fused && i === 0 ? count + 1 : count)),
    split: random.next() < 0.5,
    paddingRows: random.next() < 0.2 ? 1 + random.below(2) : 0,
    spread: random.next() < 0.1 ? 1e5 : 1,
    seed,
  };
}

/** What families ask for besides: each option fused and paged, KV types by turns. */
const OPTIONS: readonly Partial<AttentionShape>[] = [
  { rotaryDim: 0 },
  { rotaryDim: 0, norm: "layer each head", headDim: 24, valueDim: 24 },
  { norm: "layer each head" },
  { norm: "layer each head", interleaved: true, heads: 10 },
  { norm: "rms after rope" },
  { norm: "rms after rope", rotaryDim: 16, headDim: 40, valueDim: 40 },
  { norm: "rms after rope without weights", heads: 8, kvHeads: 1 },
  { norm: "projection" },
  { norm: "projection", clip: 0.5, kvHeads: 6, gated: true },
  { clip: 0.75 },
  { gated: true },
  { gated: true, headDim: 128, valueDim: 128, rotaryDim: 32, norm: "rms", heads: 4, split: true },
  { valueDim: 32, sinks: true },
  { valueDim: 40, headDim: 56, rotaryDim: 24, softcap: 5, gated: true },
  { valueDim: 128, headDim: 96, rotaryDim: 96, window: 20, kvHeads: 3 },
  { norm: "layer with biases", rotaryDim: 16, headDim: 40, valueDim: 40 },
];

/** Every option that a family may ask for and the random shapes do not have. */
export function attentionOptionCases(firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  return OPTIONS.map((options, i) => {
    const rows = i % 2 === 0 ? { past: [41, 300], counts: [1, 1] } : { past: [7, 254], counts: [5, 4] };
    const kvType = kvTypes[Math.floor(i / 2) % kvTypes.length] ?? "f16";
    return attentionCase({ ...PLAIN_ATTENTION, kvType, ...rows, ...options, seed: firstSeed + i });
  });
}

/** Where scales end: vectors of zeros, those too small for one, and such that no half could hold. */
export function extremeScaleCases(firstSeed: number): Case[] {
  return [0, 1e-32, 1e30].flatMap((spread, i) =>
    [
      [1, 1],
      [5, 4],
    ].map((counts, j) =>
      attentionCase({
        ...PLAIN_ATTENTION,
        kvType: "int8",
        past: [41, 300],
        counts,
        spread,
        seed: firstSeed + 2 * i + j,
      }),
    ),
  );
}

/** SmolLM2-135M (9 query heads, 3 KV heads, head_dim 64) and others of the size of real heads, decode and prefill. */
export function realAttentionCases(firstSeed: number, kvTypes: readonly KvType[] = PLAIN_KV_TYPES): Case[] {
  const heads = [
    [9, 3, 64],
    [8, 2, 128],
    [4, 1, 256],
    [32, 32, 32],
  ] as const;
  const steps = [
    { past: [0], counts: [1] },
    { past: [0], counts: [24] },
    { past: [511, 512, 40], counts: [1, 1, 1] },
    { past: [250], counts: [9] },
    { past: [700, 3], counts: [2, 1] },
  ];
  let seed = firstSeed;
  return heads.flatMap(([queryHeads, kvHeads, headDim]) =>
    steps.flatMap(({ past, counts }) =>
      kvTypes.map((kvType) =>
        attentionCase({
          kvType,
          heads: queryHeads,
          kvHeads,
          headDim,
          valueDim: headDim,
          rotaryDim: headDim,
          interleaved: false,
          norm: headDim === 128 ? "rms" : "none",
          sinks: false,
          softcap: 0,
          clip: 0,
          gated: false,
          window: null,
          past,
          counts,
          split: Math.max(...past) > 300,
          paddingRows: 0,
          spread: 1,
          seed: seed++,
        }),
      ),
    ),
  );
}
