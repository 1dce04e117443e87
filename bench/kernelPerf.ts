/**
 * Times kernels at the shapes of a real model, each only after its cases have passed on the same device and its outputs agree with
 * the naive kernel's over the same weights.
 *
 * A run of an op is one of many copies with data of their own, so that no cache holds what the next one reads; they are in one pass,
 * in order, and depend on each other through their outputs, as the ops of a step do.
 */
import { Arena } from "../device/arena.ts";
import type { Gpu } from "../device/gpu.ts";
import type { CompiledKernel } from "../device/pipelines.ts";
import { everyKernel } from "../kernels/kernelList.ts";
import type { Testbed, Verdict } from "../kernels/testbed.ts";
import { BenchError } from "./errors.ts";
import { type FmaProbe, fmaProbe } from "./fma_rate.ts";
import { type Proof, prove } from "./gate.ts";
import { type PerfBed, type PerfOp, perfTitle } from "./perfOp.ts";
import { coldBytes, measureReadRate, type ReadProbe, type ReadRate, readProbe } from "./read_rate.ts";
import { PROMPT_ROWS } from "./realShapes.ts";
import { deviation, least, mean } from "./statistics.ts";
import { timeProgram, timeTogether } from "./timing.ts";

const REPETITIONS = 7;
const LEAST_COPIES = 3;
const MAX_COPIES = 512;

/** What was measured of one op. */
export interface PerfRow {
  readonly op: string;
  readonly shape: string;
  readonly rows: number;
  /** Kernels that a run launches, each once. */
  readonly kernels: readonly string[];
  readonly copies: number;
  /** Of one run: the least of the samples, since what else the machine does only ever adds to them. */
  readonly milliseconds: number;
  readonly samples_ms: readonly number[];
  /** Least bytes that a run reads. */
  readonly bytes: number;
  readonly gb_per_second: number;
  readonly gflop_per_second: number | null;
  /** 10⁹ weights times rows a second. */
  readonly g_weight_columns_per_second: number | null;
  /** Of the bandwidth measured by turns with it. */
  readonly bandwidth_share: number;
  /** The adapter's rate of fused multiply-adds measured by turns with it, and the share of it. */
  readonly fma_gflop_per_second: number;
  readonly fma_share: number | null;
  /** NMSE against the naive kernel; for one row its time too, and how many times ours that is. */
  readonly naive: {
    readonly nmse: number;
    readonly milliseconds: number | null;
    readonly ratio: number | null;
  } | null;
}

/** A run of `measureKernels`. */
export interface PerfReport {
  readonly checks: Proof;
  readonly bandwidth: ReadRate;
  readonly rows: readonly PerfRow[];
}

/** What is timed, and who is told of it. */
export interface PerfOptions {
  readonly ops: readonly PerfOp[];
  readonly onVerdict?: (verdict: Verdict) => void;
  readonly onOp?: (title: string, index: number) => void;
  readonly signal?: AbortSignal;
}

/** Proves and times. Throws BenchError where a check fails: then nothing has been timed, or the op's outputs are wrong. */
export async function measureKernels(
  testbed: Testbed,
  { ops, onVerdict, onOp, signal }: PerfOptions,
): Promise<PerfReport> {
  const { gpu, pipelines } = testbed;
  const arena = new Arena(gpu);
  const bed = { gpu, pipelines, arena };
  try {
    const kernels = await kernelsOf(bed, ops);
    const gate = {
      kernels,
      ...(onVerdict === undefined ? {} : { onVerdict }),
      ...(signal === undefined ? {} : { signal }),
    };
    const checks = await prove(testbed, gate);
    const bandwidth = await measureReadRate(gpu, pipelines, signal);
    const probes = { reads: await readProbe(gpu, pipelines, signal), fma: await fmaProbe(gpu, pipelines, signal) };
    try {
      const rows: PerfRow[] = [];
      for (const [index, op] of ops.entries()) {
        signal?.throwIfAborted();
        onOp?.(perfTitle(op), index);
        rows.push(await measureOp(bed, op, probes, signal));
      }
      return { checks, bandwidth, rows };
    } finally {
      probes.reads.free();
      probes.fma.free();
    }
  } finally {
    arena.destroy();
  }
}

/** Kernels that the ops launch: known once they are recorded. */
async function kernelsOf(bed: PerfBed, ops: readonly PerfOp[]): Promise<CompiledKernel[]> {
  const names = new Set<string>();
  for (const op of ops) {
    const built = await op.build(bed, 1);
    for (const { kernel } of built.program.dispatches) names.add(kernel);
    built.free();
  }
  const known = everyKernel();
  return [...names].map((name) => {
    const found = known.find((it) => it.name === name);
    if (found === undefined)
      throw new BenchError(`${name}: is in no list of kernels, expected kernels/kernelList.ts to have it`);
    return found;
  });
}

async function measureOp(
  bed: PerfBed,
  op: PerfOp,
  { reads, fma }: { readonly reads: ReadProbe; readonly fma: FmaProbe },
  signal: AbortSignal | undefined,
): Promise<PerfRow> {
  const copies = copiesOf(bed.gpu, op);
  const built = await op.build(bed, copies);
  try {
    built.upload();
    const agreement = await built.compare(async (program) => {
      await timeProgram(bed.gpu, program, 0, signal);
    });
    if (agreement !== undefined && !(agreement.error <= agreement.limit)) {
      throw new BenchError(
        `${perfTitle(op)}: NMSE ${agreement.error.toExponential(1)} against the naive kernel, expected at most ${agreement.limit}; its time is not taken`,
      );
    }
    // For more rows the naive kernel takes seconds, and says nothing new.
    const rival = op.rows === 1 ? built.naive : undefined;
    const programs = [built.program, reads.program, fma.program, ...(rival === undefined ? [] : [rival])];
    const timed = await timeTogether(bed.gpu, programs, REPETITIONS, signal);
    const [whole = [], readMs = [], fmaMs = [], naiveMs = []] = timed;
    const samples = whole.map((ms) => ms / copies);
    const milliseconds = least(samples);
    const naive = rival === undefined ? null : least(naiveMs) / copies;
    const bytesPerMs = reads.bytes / least(readMs);
    const flopsPerMs = fma.flops / least(fmaMs);
    const rate = (amount: number) => (amount === 0 ? null : amount / milliseconds / 1e6);
    return {
      op: op.name,
      shape: op.shape,
      rows: op.rows,
      kernels: [...new Set(built.program.dispatches.map(({ kernel }) => kernel))],
      copies,
      milliseconds,
      samples_ms: samples,
      bytes: op.bytes,
      gb_per_second: op.bytes / milliseconds / 1e6,
      gflop_per_second: rate(op.flops),
      g_weight_columns_per_second: rate(op.weightColumns),
      bandwidth_share: op.bytes / milliseconds / bytesPerMs,
      fma_gflop_per_second: flopsPerMs / 1e6,
      fma_share: op.flops === 0 ? null : op.flops / milliseconds / flopsPerMs,
      naive:
        agreement === undefined
          ? null
          : { nmse: agreement.error, milliseconds: naive, ratio: naive === null ? null : naive / milliseconds },
    };
  } finally {
    built.free();
  }
}

/** Enough that all of them together are colder than a cache, and no more than bind groups and memory allow. */
function copiesOf(gpu: Gpu, { bytes, rows }: PerfOp): number {
  if (rows === PROMPT_ROWS) return LEAST_COPIES; // weights are read once for many rows: it is the products that take the time
  return Math.min(Math.max(Math.ceil(coldBytes(gpu) / 2 / bytes), LEAST_COPIES), MAX_COPIES);
}

/** The head of the table; ">" sets a column to the right. */
export const PERF_HEAD = [
  "op",
  "shape",
  ">M",
  ">µs",
  ">± %",
  ">GB/s",
  ">GFLOP/s",
  ">Gw·col/s",
  ">of reads",
  ">of fma",
  ">t(M)/t(1)",
  ">naive µs",
  ">× naive",
] as const;

/** Rows as cells of PERF_HEAD. */
export function perfCells(rows: readonly PerfRow[]): string[][] {
  return rows.map((row) => {
    const one = rows.find((it) => it.op === row.op && it.shape === row.shape && it.rows === 1);
    return [
      row.op,
      row.shape,
      String(row.rows),
      (1000 * row.milliseconds).toFixed(1),
      ((100 * deviation(row.samples_ms)) / mean(row.samples_ms)).toFixed(0),
      row.gb_per_second.toFixed(2),
      row.gflop_per_second?.toFixed(2) ?? "",
      row.g_weight_columns_per_second?.toFixed(2) ?? "",
      `${(100 * row.bandwidth_share).toFixed(0)} %`,
      row.fma_share === null ? "" : `${(100 * row.fma_share).toFixed(0)} %`,
      row.naive === null || one === undefined ? "" : (row.milliseconds / one.milliseconds).toFixed(2),
      row.naive?.milliseconds == null ? "" : (1000 * row.naive.milliseconds).toFixed(1),
      row.naive?.ratio?.toFixed(1) ?? "",
    ];
  });
}
