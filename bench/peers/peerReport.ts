/** Engines measured by turns, and the tables of it. */
import { Random } from "../../kernels/testbed.ts";
import { median } from "../statistics.ts";
import { markdown } from "../tables.ts";
import type { MatmulTimes } from "./gpuJs.ts";
import type { Peer, PeerAnswer } from "./peer.ts";

/** An engine's answers, one a round. */
export interface Measured {
  readonly name: string;
  readonly answers: readonly PeerAnswer[];
}

/** What every engine is asked for. */
export interface Counts {
  readonly prompt: number;
  readonly tokens: number;
  readonly rounds: number;
}

/** One round to warm up, since drivers compile at the first dispatch; then every engine once a round, each round with a prompt of its own. */
export async function byTurns(
  peers: readonly Peer[],
  vocabulary: number,
  { prompt, tokens, rounds }: Counts,
  onAnswer: (line: string) => void,
): Promise<Measured[]> {
  const random = new Random(1);
  const answers = peers.map((): PeerAnswer[] => []);
  for (let round = -1; round < rounds; round++) {
    const ids = Array.from({ length: prompt }, () => random.below(vocabulary));
    for (const [i, peer] of peers.entries()) {
      const answer = await peer.answer(ids, 1 + tokens);
      if (round >= 0) answers[i]?.push(answer);
      const { promptMs, decodeMs } = answer;
      const what = round < 0 ? "warm-up" : `round ${round + 1} of ${rounds}`;
      onAnswer(`${what}: ${peer.name}: prompt ${promptMs.toFixed(0)} ms, ${tokens} tokens ${decodeMs.toFixed(0)} ms`);
    }
  }
  return peers.map(({ name }, i) => ({ name, answers: answers[i] ?? [] }));
}

/**
 * Tokens a second by the median round, how many times as fast the first engine is, and how many tokens are the first one's until an
 * answer parts from it. `agreed`: the first token of each prompt was the same in all.
 */
export function peerTable(measured: readonly Measured[], { prompt, tokens }: Counts) {
  const [own] = measured;
  if (own === undefined) throw new RangeError("peers: none was measured");
  const rates = (it: Measured) => ({
    prompt: (1000 * prompt) / median(it.answers.map(({ promptMs }) => promptMs)),
    decode: (1000 * tokens) / median(it.answers.map(({ decodeMs }) => decodeMs)),
  });
  const ours = rates(own);
  const rows = measured.map((it) => {
    const rate = rates(it);
    const same = it.answers.map((answer, i) => equalTokens(answer, own.answers[i]));
    return [
      it.name,
      rate.prompt.toFixed(1),
      (ours.prompt / rate.prompt).toFixed(2),
      rate.decode.toFixed(2),
      (ours.decode / rate.decode).toFixed(2),
      `${same.reduce((a, b) => a + b, 0)} of ${it.answers.length * (1 + tokens)}`,
    ];
  });
  const head = ["engine", ">prompt t/s", ">ingle is ×", ">decode t/s", ">ingle is ×", ">same tokens"];
  const agreed = measured.every(({ answers }) => answers.every((it, i) => it.tokens[0] === own.answers[i]?.tokens[0]));
  return { text: markdown(head, rows), agreed };
}

/** Tokens that are equal before the first that is not. */
function equalTokens({ tokens }: PeerAnswer, other: PeerAnswer | undefined): number {
  const parts = tokens.findIndex((token, i) => token !== other?.tokens[i]);
  return parts < 0 ? tokens.length : parts;
}

/** The matmuls of a page. */
export function matmulTable(times: readonly MatmulTimes[]): string {
  const rows = times.map(({ rows: count, ingleMs, naiveMs, gpuJsMs }) => [
    String(count),
    ingleMs.toFixed(3),
    naiveMs.toFixed(3),
    gpuJsMs.toFixed(3),
    (gpuJsMs / ingleMs).toFixed(1),
  ]);
  return markdown([">rows", ">ingle ms", ">naive WGSL ms", ">gpu.js ms", ">ingle is × gpu.js"], rows);
}
