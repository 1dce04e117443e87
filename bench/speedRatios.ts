/** What a model's speed is judged by: a step against its matmuls, a prompt against generation, depth against the bytes it adds. */
import type { DecodeStep } from "./decodeStep.ts";
import { atLeast, atMost, near, type Ratio } from "./ratios.ts";
import type { SpeedRecord } from "./speedReport.ts";

type Measured = SpeedRecord & { readonly speed: NonNullable<SpeedRecord["speed"]> };

/** All ratios that the rows of one request at a time suffice for. */
export function speedRatios(records: readonly SpeedRecord[], decode: DecodeStep | undefined): Ratio[] {
  const single = records.filter((it): it is Measured => it.speed !== null && it.batch === 1);
  const plain = single.filter(({ drafted }) => !drafted);
  const ofKind = (kind: "pp" | "tg") => plain.filter((it) => it.kind === kind);
  const [first] = ofKind("tg").filter(({ depth }) => depth === 0);
  const ratios: Ratio[] = [];
  if (decode !== undefined) {
    const { dispatches, matmuls, ratio, matmulsMs, encodeUs } = decode;
    const alone = `its ${matmuls} matmuls alone`;
    ratios.push(atMost(`a decode step's ${dispatches} dispatches over ${alone}: time`, ratio, 1.25));
    ratios.push(atMost("encoding a decode step: µs of the CPU a dispatch", encodeUs, 3));
    if (first !== undefined) {
      const token = 1000 / Math.max(...first.speed.tokens_per_second.samples); // of the best repetition, as the matmuls' time is the least
      ratios.push(atMost(`a token of ${first.test} over ${alone}: time`, token / matmulsMs, 1.25));
    }
  }
  if (first === undefined) return ratios;
  for (const prompt of ofKind("pp").filter(({ depth }) => depth === 0)) {
    const value = rate(prompt) / rate(first);
    ratios.push(atLeast(`${prompt.test} over ${first.test}: tokens a second`, value, 2.5));
  }
  for (const deep of ofKind("tg").filter(({ depth }) => depth > 0)) {
    const value = (rate(deep) * deep.speed.bytes_per_token) / (rate(first) * first.speed.bytes_per_token);
    ratios.push(near(`${deep.test} over ${first.test}: bytes read a second`, value, 0.25));
  }
  for (const one of ofKind("tg")) {
    const other = single.find(({ drafted, tokens, depth }) => drafted && tokens === one.tokens && depth === one.depth);
    if (other === undefined) continue;
    ratios.push(atLeast(`${other.test} over ${one.test}: tokens a second`, rate(other) / rate(one), 1));
  }
  return ratios;
}

const rate = ({ speed }: Measured): number => speed.tokens_per_second.mean;
