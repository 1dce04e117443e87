/** Seeded rows of logits for the cases of the kernels that read them. */
import type { Comparison, Random } from "./testbed.ts";

/** What a row looks like. Order matters: case lists take kinds by turns. */
export const LOGIT_KINDS = [
  "normal",
  /** Few different values, so that a threshold meets ties. */
  "ties",
  /** Both zeros, which are equal, above all others. */
  "zeros",
  "flat",
  /** Values up to ±1e4. */
  "great",
  /** Most tokens masked by -3e38, the first and the last ones always. */
  "masked",
  /** One token far above all others. */
  "spike",
  /** A NaN or an infinity somewhere, in most rows. */
  "broken",
] as const;
export type LogitKind = (typeof LOGIT_KINDS)[number];

/** Stands for -∞, as grammars and penalties write it. */
const MASKED = -3e38;

/** A row of `vocab` logits of a kind. */
export function randomLogits(random: Random, kind: LogitKind, vocab: number): Float32Array {
  const logits = random.floats(vocab, 4);
  switch (kind) {
    case "normal":
      return logits;
    case "ties":
      return logits.map(() => random.pick([-1.5, 0, 0.25, 2]));
    case "zeros":
      return logits.map(() => random.pick([-0, 0, -0, -2, -3]));
    case "flat":
      return logits.fill(random.next() * 8 - 4);
    case "great":
      return logits.map(() => (random.next() * 2 - 1) * 1e4);
    case "masked":
      return logits.map((v, i) => {
        const edge = vocab > 2 && (i === 0 || i === vocab - 1);
        return edge || (i !== vocab >> 1 && random.next() < 0.8) ? MASKED : v;
      });
    case "spike":
      logits[random.below(vocab)] = 60;
      return logits;
    case "broken":
      if (random.next() < 0.8) {
        const bad = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY] as const;
        logits[random.below(vocab)] = random.pick(bad);
      }
      return logits;
  }
}

/** The rows (rows, stride), NaN behind each. */
export function stacked(rows: readonly Float32Array[], stride: number): Float32Array {
  const data = new Float32Array(rows.length * stride).fill(Number.NaN);
  for (const [i, row] of rows.entries()) data.set(row, i * stride);
  return data;
}

/** Whether no logit of a row is NaN or infinite. */
export const isFiniteRow = (logits: Float32Array): boolean => logits.every(Number.isFinite);

/** log Σ exp(logit) in f64. */
export function logSumExp(logits: Float32Array): number {
  const best = logits.reduce((a, b) => Math.max(a, b));
  return best + Math.log(logits.reduce((sum, v) => sum + Math.exp(v - best), 0));
}

/** exp and log of drivers are good to about 1e-6. */
const LIMIT = 1e-11;

/** Log-probabilities against f64, each by its error over its size or over 1: a great one does not hide a small one. */
export function logProbComparison(got: readonly number[], want: readonly number[]): Comparison {
  const errors = got.map((value, i) => {
    const wanted = want[i] ?? Number.NaN;
    return 1 + (value - wanted) / Math.max(1, Math.abs(wanted));
  });
  return { name: "log-probabilities (1 + error)", got: errors, want: want.map(() => 1), limit: LIMIT };
}
