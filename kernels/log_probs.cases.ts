/** Cases of raw log-probabilities: targets, the N best, ties, more entries than tokens, rows that are not finite. */
import { PLAIN_SAMPLE, sampleWords } from "./caseData.ts";
import { f32FromBits } from "./formats/halves.ts";
import { NONE } from "./kernel.ts";
import { logProbs } from "./log_probs.ts";
import {
  isFiniteRow,
  LOGIT_KINDS,
  type LogitKind,
  logProbComparison,
  logSumExp,
  randomLogits,
  stacked,
} from "./logitData.ts";
import { type Case, Random } from "./testbed.ts";

interface LogProbsShape {
  readonly vocab: number;
  readonly rows: number;
  readonly top: number;
  readonly kind: LogitKind;
  readonly seed: number;
}

function logProbsCase({ vocab, rows, top, kind, seed }: LogProbsShape): Case {
  return {
    kernel: "log_probs",
    title: `log_probs vocab=${vocab} rows=${rows} top=${top} ${kind} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const stride = vocab + random.below(5);
      const logits = Array.from({ length: rows }, () => randomLogits(random, kind, vocab));
      const targets = logits.map(() => (random.next() < 0.3 ? NONE : random.below(vocab)));
      const lead = random.below(40);
      const width = 2 + 2 * top;
      const out = bed.output(rows * width);
      const buffers = {
        logits: bed.buffer(stacked(logits, stride)),
        batch: bed.buffer(
          sampleWords(
            targets.map((target) => ({ ...PLAIN_SAMPLE, target })),
            lead,
          ),
        ),
        out,
      };
      const params = { vocab, stride, samples: lead, top };
      await bed.submit((recorder) => logProbs.launch(recorder, { buffers, params, grid: [rows, 1, 1] }));
      const words = await bed.u32(out);
      const exact: { got: number[]; want: number[] } = { got: [], want: [] };
      const near: { got: number[]; want: number[] } = { got: [], want: [] };
      logits.forEach((row, i) => {
        const [lp = 0, broken = 0, ...entries] = words.subarray(i * width, (i + 1) * width);
        exact.got.push(broken);
        exact.want.push(isFiniteRow(row) ? 0 : 1);
        if (!isFiniteRow(row)) return;
        const sum = logSumExp(row);
        const target = row[targets[i] ?? NONE];
        near.got.push(f32FromBits(lp));
        near.want.push(target === undefined ? 0 : target - sum);
        const order = Array.from(row.keys()).sort((a, b) => (row[b] ?? 0) - (row[a] ?? 0) || a - b);
        for (let n = 0; n < top; n++) {
          const id = order[n];
          exact.got.push(entries[2 * n] ?? Number.NaN);
          exact.want.push(id ?? NONE);
          near.got.push(f32FromBits(entries[2 * n + 1] ?? Number.NaN));
          near.want.push(id === undefined ? 0 : (row[id] ?? Number.NaN) - sum);
        }
      });
      return [{ name: "flags and ids", ...exact, limit: 0 }, logProbComparison(near.got, near.want)];
    },
  };
}

/** `count` cases: sizes round the 256 lanes, kinds of rows by turns, N of 0, 1, 10 and 64. */
export function logProbsCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 5003);
    const vocab = random.pick([1, 2, 7, 63, 255, 256, 257, 1000, 2500]);
    const kind = LOGIT_KINDS[i % LOGIT_KINDS.length] ?? "normal";
    return logProbsCase({ vocab, rows: 1 + random.below(4), top: random.pick([0, 1, 10, 64]), kind, seed });
  });
}

/** A vocabulary of a real model. */
export const realLogProbsCases = (firstSeed: number): Case[] =>
  [0, 10].map((top, i) => logProbsCase({ vocab: 49152, rows: 2, top, kind: "normal", seed: firstSeed + i }));
