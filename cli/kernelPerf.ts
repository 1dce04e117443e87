/** `ingle kernels --perf`: times what has passed, on the adapter that a model would take. */
import { conditionLines, conditions } from "../bench/conditions.ts";
import { measureKernels, PERF_HEAD, perfCells } from "../bench/kernelPerf.ts";
import { perfTitle } from "../bench/perfOp.ts";
import { perfRatios, stepMatmuls } from "../bench/perfRatios.ts";
import { RATIO_HEAD, ratioCells } from "../bench/ratios.ts";
import { realOps } from "../bench/realShapes.ts";
import { least, percentile } from "../bench/statistics.ts";
import { openGpu } from "../device/gpu.ts";
import { Testbed } from "../kernels/testbed.ts";
import type { Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import { given } from "./given.ts";
import { jsonLine, print, table } from "./output.ts";
import { bar } from "./progress.ts";
import { version } from "./version.ts";

/** What was asked for. */
export interface KernelPerfOptions {
  readonly adapter: string | undefined;
  /** Part of an op's title. */
  readonly filter: string;
  readonly limits: "adapter" | "default";
  readonly json: boolean;
}

/** Returns the exit code; throws BenchError where a kernel did not pass. */
export async function kernelPerf(options: KernelPerfOptions, { reporter, signal }: Context): Promise<number> {
  const ops = realOps().filter((op) => perfTitle(op).includes(options.filter));
  if (ops.length === 0) {
    const names = [...new Set(realOps().map(({ name }) => name))].join(", ");
    throw new UsageError(
      `--filter: no op has ${JSON.stringify(options.filter)} in it, expected part of ${names}, a shape or M=1`,
    );
  }
  const gpu = await openGpu({ limits: options.limits, ...given({ adapter: options.adapter }) });
  const bed = new Testbed(gpu);
  try {
    const report = await measureKernels(bed, {
      ops,
      signal,
      onVerdict: ({ title }) => reporter.status(`checking kernels: ${title}`),
      onOp: (title, index) => reporter.status(`${bar(index / ops.length)} ${title}`),
    });
    reporter.clear();
    const measured = conditions(gpu, version(), report.checks, report.bandwidth);
    if (options.json) {
      const { rows } = report;
      print(jsonLine({ conditions: measured, rows, step_matmuls: stepMatmuls(rows), ratios: perfRatios(rows) }));
      return EXIT.done;
    }
    for (const line of conditionLines(measured)) print(`${line}\n`);
    const fma = report.rows.map((row) => row.fma_gflop_per_second);
    print(`between ${least(fma).toFixed(1)} and ${percentile(fma, 100).toFixed(1)} GFLOP/s of fused multiply-adds\n`);
    print(`\n${table(PERF_HEAD, perfCells(report.rows))}`);
    const steps = stepMatmuls(report.rows).map(
      ({ rows, milliseconds }) => `${milliseconds.toFixed(1)} ms at M=${rows}`,
    );
    if (steps.length > 0) print(`\nall matmuls of a step: ${steps.join(", ")}\n`);
    const ratios = perfRatios(report.rows);
    if (ratios.length > 0) print(`\n${table(RATIO_HEAD, ratioCells(ratios))}`);
    return EXIT.done;
  } finally {
    bed.close();
    gpu.close();
  }
}
