/** Same row, same bits of what keeps a state: rows at once, in chunks among others, and token by token. */
import { bits, equal } from "../sameWords.ts";
import type { Case, Comparison } from "../testbed.ts";
import { deltaInputs, runDelta } from "./delta_rule.cases.ts";
import { convInputs, runConv } from "./short_conv.cases.ts";
import { atOnce, oneByOne, type StepsShape } from "./stateData.ts";

const PAST = { past: [0, 0, 5, 33], padding: 1 } as const;
/** Rows that begin sequences, go on alone, and share steps with others. */
const CHUNKS = [
  [3, 0, 1, 1],
  [1, 9, 1, 0],
  [1, 2, 1, 6],
] as const;

/** A short convolution over sequences at once, in chunks among others, and token by token. */
const convChunksCase = (gated: boolean, seed: number): Case => ({
  kernel: "short_conv",
  title: `same_bits short_conv${gated ? " gated" : ""} at once, in chunks, one by one seed=${seed}`,
  async run(bed) {
    const shape = { ...PAST, steps: CHUNKS, channels: 72, taps: 4, gated, bias: gated, seed };
    return chunksOf(shape, convInputs(shape), (plan, from) => runConv(bed, plan, from));
  },
});

/** The delta rule in the same ways. */
const deltaChunksCase = (valueDim: number, seed: number): Case => ({
  kernel: "delta_rule",
  title: `same_bits delta_rule dims=24,${valueDim} at once, in chunks, one by one seed=${seed}`,
  async run(bed) {
    const shape = { ...PAST, steps: CHUNKS, keyHeads: 2, group: 2, keyDim: 24, valueDim, shift: 0, seed };
    return chunksOf(shape, deltaInputs(shape), (plan, from) => runDelta(bed, plan, from));
  },
});

async function chunksOf<Shape extends StepsShape, From>(
  shape: Shape,
  from: From,
  run: (plan: Shape, from: From) => Promise<{ out: Float32Array; sums: Float32Array; state: Float32Array }>,
): Promise<Comparison[]> {
  const plans: readonly (readonly [string, StepsShape])[] = [
    ["at once", atOnce(shape)],
    ["in chunks", shape],
    ["one by one", oneByOne(shape)],
  ];
  const results: [string, Uint32Array][][] = [[], [], []];
  for (const [name, plan] of plans) {
    const got = await run({ ...shape, ...plan }, from);
    [got.out, got.sums, got.state].forEach((data, i) => {
      results[i]?.push([`${["rows", "sums", "states"][i]} ${name}`, bits(data)]);
    });
  }
  return results.flatMap(equal);
}

/** What keeps a state: the same rows in other steps. */
export function sameStateCases(firstSeed: number): Case[] {
  return [
    convChunksCase(true, firstSeed),
    convChunksCase(false, firstSeed + 1),
    deltaChunksCase(16, firstSeed + 2),
    deltaChunksCase(64, firstSeed + 3),
  ];
}
