/** Rows of speed as people and programs read them: llama-bench's columns, and all of it as data. */
import type { DraftStats } from "../engine/draftCounts.ts";
import { bytesPerToken, type ModelBytes } from "./modelBytes.ts";
import type { SpeedRow } from "./speed.ts";
import { deviation, mean, percentile } from "./statistics.ts";

/** What all rows of a run share. */
export interface SpeedSubject {
  readonly model: string;
  /** Bytes of its weights on the GPU, and its parameters. */
  readonly size: number;
  readonly params: number;
  /** "affine4/64" */
  readonly weights: string;
  readonly kv: string;
  readonly adapter: string;
  readonly bytes: ModelBytes;
  readonly rowsPerStep: number;
  /** Bytes a second that the adapter reads. */
  readonly bandwidth: number;
}

/** Above this share of the mean, a deviation is worth a word: something else ran on the machine. */
const NOISE = 0.05;

/** What became of proposals while a row was measured, its warm-up counted. */
export function draftRecord(from: DraftStats, to: DraftStats) {
  const by_position = to.byPosition.map(({ proposed, accepted }, i) => ({
    proposed: proposed - (from.byPosition[i]?.proposed ?? 0),
    accepted: accepted - (from.byPosition[i]?.accepted ?? 0),
  }));
  return { proposed: to.proposed - from.proposed, accepted: to.accepted - from.accepted, by_position };
}
export type DraftRecord = ReturnType<typeof draftRecord>;

/** "draft 71 % accepted of 56: 87 % 75 % 50 % by position"; undefined where nothing was proposed. */
export function draftLine({ proposed, accepted, by_position }: DraftRecord): string | undefined {
  if (proposed === 0) return undefined;
  const places = by_position.filter((place) => place.proposed > 0);
  const percent = (share: { readonly proposed: number; readonly accepted: number }) =>
    `${Math.round((100 * share.accepted) / share.proposed)} %`;
  return `draft ${percent({ proposed, accepted })} accepted of ${proposed}: ${places.map(percent).join(" ")} by position`;
}

/** A row with its sums, as JSON has it; numbers are null where the row failed. */
export function speedRecord(row: SpeedRow, subject: SpeedSubject, draft?: DraftRecord) {
  const { model, size, params, weights, kv, adapter, bytes, rowsPerStep, bandwidth } = subject;
  const { kind, name: test, tokens, depth, batch, repetitions, error, drafted = false } = row;
  const total = (value: (it: SpeedRow["repetitions"][number]) => number) =>
    repetitions.reduce((sum, it) => sum + value(it), 0);
  const test_of = {
    model,
    size,
    params,
    backend: "WebGPU",
    adapter,
    weights,
    kv,
    batch,
    test,
    kind,
    tokens,
    depth,
    drafted,
  };
  const shared = { ...test_of, ...(draft === undefined || draft.proposed === 0 ? {} : { draft }) };
  const counted = {
    computed_tokens: total(({ computedTokens }) => computedTokens),
    cached_tokens: total(({ cachedTokens }) => cachedTokens),
  };
  if (error !== null || repetitions.length === 0)
    return { ...shared, ...counted, error: error ?? "no repetition", speed: null };
  const samples = repetitions.map(({ tokensPerSecond }) => tokensPerSecond);
  const perToken = 1 / (tokens * batch * repetitions.length);
  const between = repetitions.flatMap(({ betweenTokensMs }) => betweenTokensMs);
  const firsts = repetitions.flatMap(({ firstTokenMs }) => firstTokenMs);
  const read = bytesPerToken(bytes, row, rowsPerStep);
  return {
    ...shared,
    ...counted,
    error: null,
    speed: {
      tokens_per_second: { mean: mean(samples), sd: deviation(samples), samples },
      milliseconds: repetitions.map(({ milliseconds }) => milliseconds),
      first_token_ms: { p50: percentile(firsts, 50), p95: percentile(firsts, 95), p99: percentile(firsts, 99) },
      between_tokens_ms:
        between.length === 0
          ? null
          : {
              p50: percentile(between, 50),
              p95: percentile(between, 95),
              p99: percentile(between, 99),
            },
      dispatches_per_token: perToken * total(({ dispatches }) => dispatches),
      encode_us_per_dispatch: (1000 * total(({ encodeMs }) => encodeMs)) / total(({ dispatches }) => dispatches),
      submits_per_token: perToken * total(({ submits }) => submits),
      bytes_back_per_token: perToken * total(({ bytesBack }) => bytesBack),
      bytes_per_token: read,
      bandwidth_share: (read * mean(samples)) / bandwidth,
    },
  };
}
export type SpeedRecord = ReturnType<typeof speedRecord>;

/** The head of the table; ">" sets a column to the right. */
export const SPEED_HEAD = [
  "model",
  ">size",
  ">params",
  "backend",
  "adapter",
  "weights",
  "kv",
  ">batch",
  "test",
  ">t/s",
  ">first ms",
  ">p50 ms",
  ">p95 ms",
  ">p99 ms",
  ">disp/t",
  ">sub/t",
  ">MB/t",
  ">of reads",
  ">computed",
  ">cached",
] as const;

/** A record as cells of SPEED_HEAD. */
export function speedCells(record: SpeedRecord): string[] {
  const { model, size, params, backend, adapter, weights, kv, batch, test, speed } = record;
  const shared = [
    model,
    `${(size / 2 ** 20).toFixed(1)} MiB`,
    `${(params / 1e6).toFixed(1)} M`,
    backend,
    adapter,
    weights,
    kv,
    String(batch),
    test,
  ];
  const counts = [String(record.computed_tokens), String(record.cached_tokens)];
  if (speed === null) return [...shared, "failed", ...Array.from({ length: 8 }, () => ""), ...counts];
  const { tokens_per_second: rate, between_tokens_ms: between } = speed;
  return [
    ...shared,
    `${rate.mean.toFixed(2)} ± ${rate.sd.toFixed(2)}`,
    speed.first_token_ms.p50.toFixed(1),
    ...(between === null ? ["", "", ""] : [between.p50, between.p95, between.p99].map((ms) => ms.toFixed(1))),
    speed.dispatches_per_token.toFixed(1),
    speed.submits_per_token.toFixed(2),
    (speed.bytes_per_token / 1e6).toFixed(2),
    `${(100 * speed.bandwidth_share).toFixed(0)} %`,
    ...counts,
  ];
}

/** What to think of before a row is quoted; undefined where nothing is. */
export function noiseOf({ test, batch, speed }: SpeedRecord): string | undefined {
  if (speed === null || speed.tokens_per_second.sd <= NOISE * speed.tokens_per_second.mean) return undefined;
  const percent = ((100 * speed.tokens_per_second.sd) / speed.tokens_per_second.mean).toFixed(0);
  return `${test} of batch ${batch}: varies by ${percent} %, expected at most ${100 * NOISE}; is anything else running?`;
}
