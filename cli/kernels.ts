/** `ingle kernels`: proves every kernel on every adapter, or on the one that was asked for. */
import type { AdapterDescription } from "../device/adapters.ts";
import { chosenAdapters } from "../device/gpu.ts";
import { type ConformanceReport, casesOf, runConformance } from "../kernels/conformance.ts";
import type { Verdict } from "../kernels/testbed.ts";
import { VERDICT_HEAD, verdictCells } from "../kernels/verdictCells.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { kernelPerf } from "./kernelPerf.ts";
import { ADAPTER_FLAGS, OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { jsonLine, print, table } from "./output.ts";
import { bar } from "./progress.ts";

const FLAGS = {
  filter: { value: "NAME", help: "only cases that have this in their title, as a kernel's name" },
  all: { help: "more than 4,000 cases, with the shapes of real models, instead of some 540" },
  perf: {
    help: "times kernels at a real model's shapes, once their cases have passed; --filter takes an op, as qkv_proj",
  },
  list: { help: "prints the cases' titles and runs none" },
  limits: { value: "adapter|default", help: "limits of the device: the adapter's buffers, or WebGPU's minimum" },
  ...ADAPTER_FLAGS,
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;

export const kernels: Command = {
  usage: "kernels [--perf] [--filter NAME]",
  summary: "proves every kernel on every adapter found",
  flags: FLAGS,
  more: `examples:
  ingle kernels --adapter swiftshader
  ingle kernels --all --filter matmul --json
  ingle kernels --perf --filter M=1`,
  run: kernelsCommand,
};

async function kernelsCommand(args: Arguments<keyof typeof FLAGS>, context: Context): Promise<number> {
  const json = wantsJson(args);
  const [extra] = args.positionals;
  if (extra !== undefined) throw new UsageError(`${extra}: kernels takes no names; did you mean --filter ${extra}?`);
  const suite = args.has("all") ? "all" : "named";
  const filter = args.text("filter") ?? "";
  const limits = args.oneOf("limits", ["adapter", "default"]) ?? "adapter";
  args.atMostOne("perf", "all");
  args.atMostOne("perf", "list");
  if (args.has("perf")) return await kernelPerf({ adapter: args.text("adapter"), filter, limits, json }, context);
  const titles = titlesOf(suite, filter);
  if (args.has("list")) {
    print(json ? jsonLine({ suite, titles }) : titles.map((title) => `${title}\n`).join(""));
    return EXIT.done;
  }
  let failed = false;
  for (const adapter of await chosenAdapters(args.text("adapter"))) {
    const report = await runConformance({
      adapter: String(adapter.index),
      suite,
      filter,
      limits,
      signal: context.signal,
      onVerdict: ({ title }, index, total) => context.reporter.status(`${bar((index + 1) / total)} ${title}`),
    });
    context.reporter.clear();
    print(json ? jsonLine(report) : reportText(report, adapter));
    failed ||= report.failed > 0 || report.passed === 0;
  }
  return failed ? EXIT.failed : EXIT.done;
}

function titlesOf(suite: "named" | "all", filter: string): string[] {
  try {
    return casesOf(suite, filter).map(({ title }) => title);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const more = suite === "all" ? "--list prints the titles" : "try --all, or --list for the titles";
    throw new UsageError(`--filter: no title has ${JSON.stringify(filter)} in it; ${more}`, { cause });
  }
}

function reportText(report: ConformanceReport, { index, name, driver }: AdapterDescription): string {
  const names = [...new Set(report.cases.map(({ kernel }) => kernel))];
  const casesOfKernel = (name: string) => report.cases.filter(({ kernel }) => kernel === name);
  const rows = names.map((name) => verdictCells(name, casesOfKernel(name)));
  const failures = report.cases.filter(({ passed }) => !passed).map((verdict) => failureText(verdict, index));
  const seconds = (report.milliseconds / 1000).toFixed(1);
  const lacking = [...new Set(report.skipped.flatMap(({ needs }) => needs))].join(", ");
  const skipped = report.skipped.length === 0 ? "" : ` · ${report.skipped.length} skipped without ${lacking}`;
  const sum = `${report.passed} of ${report.cases.length} cases passed in ${seconds} s${skipped} · ${report.pipelines} pipelines · ${report.hash.slice(0, 16)}`;
  const head = `${index} ${name}${driver === "" ? "" : ` · ${driver}`}\n`;
  return `${head}${table(VERDICT_HEAD, rows)}${failures.join("")}${sum}\n\n`;
}

function failureText({ title, why }: Verdict, index: number): string {
  return `failed: ${title}\n  ${why}\n  again: ingle kernels --all --adapter ${index} --filter ${JSON.stringify(title)}\n`;
}
