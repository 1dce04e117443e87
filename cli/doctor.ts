/** `ingle doctor`: adapters, which one is taken and why, what passed the self-test, known faults of drivers, and what to install. */
import type { AdapterDescription } from "../device/adapters.ts";
import { bytes } from "../device/buffers.ts";
import { AdapterUnavailableError } from "../device/errors.ts";
import { chosenAdapters, listAdapters } from "../device/gpu.ts";
import { keptTexts } from "../device/keptTexts.ts";
import { missingFor, NARROW_NEEDS, PRECISIONS } from "../kernels/xFrom.ts";
import type { Command, Context } from "./command.ts";
import { knownFaults } from "./driverFaults.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { ADAPTER_FLAGS, OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { jsonLine, print } from "./output.ts";
import { runSelfTest, type SelfTestReport, selfTestLines, selfTestReport } from "./selfTestReport.ts";

const FLAGS = {
  "self-test": { help: "try every kernel variant afresh, on --adapter or on all" },
  ...ADAPTER_FLAGS,
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;
const FEATURES = ["shader-f16", "subgroups", "timestamp-query"];

export const doctor: Command = {
  usage: "doctor",
  summary: "adapters, features, limits, self-test, what to install",
  flags: FLAGS,
  more: "`ingle kernels` then proves an adapter's arithmetic.",
  run: doctorCommand,
};

async function doctorCommand(args: Arguments<keyof typeof FLAGS>, context: Context): Promise<number> {
  const json = wantsJson(args);
  if (args.positionals.length > 0) throw new UsageError(`${args.positionals[0]}: doctor takes no names`);
  const selector = args.text("adapter");
  const adapters = await found();
  const { candidates, problem } = await choice(selector);
  const [chosen] = candidates;
  const kept = await keptTexts();
  if (args.has("self-test")) for (const adapter of candidates) await runSelfTest(kept, adapter, context);
  const tested = await Promise.all(
    adapters.map(async (adapter) => ({ adapter, report: await selfTestReport(kept, adapter) })),
  );
  const advice = adviceFor(adapters);
  if (json) {
    const listed = tested.map(({ adapter, report }) => ({
      ...adapter,
      faults: knownFaults(adapter),
      selfTest: report,
    }));
    print(
      jsonLine({
        node: process.version,
        platform: platform(),
        adapters: listed,
        chosen: chosen?.index ?? null,
        problem,
        advice,
      }),
    );
  } else {
    print(`node ${process.version} on ${platform()}\n`);
    for (const { adapter, report } of tested) print(`\n${adapterText(adapter, report)}`);
    if (chosen !== undefined)
      print(`\ntaken: ${chosen.index} ${chosen.name} (${reasonFor(selector, adapters.length)})\n`);
    if (problem !== null) print(`\n${problem}\n`);
    for (const line of advice) print(`${line}\n`);
  }
  const wrong = tested.some(
    ({ adapter, report }) => candidates.includes(adapter) && report.failed.some(({ variant }) => variant === null),
  );
  return chosen === undefined || (args.has("self-test") && wrong) ? EXIT.failed : EXIT.done;
}

/** Why the adapter was taken. */
function reasonFor(selector: string | undefined, found: number): string {
  if (selector !== undefined) return "--adapter";
  if (process.env.INGLE_ADAPTER) return "INGLE_ADAPTER";
  return found > 1 ? "the best of those" : "the only one";
}

const platform = () => `${process.platform} ${process.arch}`;

/** None is news, not a failure: what to do about it is printed. */
async function found(): Promise<AdapterDescription[]> {
  try {
    return await listAdapters();
  } catch (error) {
    if (error instanceof AdapterUnavailableError) return [];
    throw error;
  }
}

async function choice(
  selector: string | undefined,
): Promise<{ candidates: readonly AdapterDescription[]; problem: string | null }> {
  try {
    return { candidates: await chosenAdapters(selector), problem: null };
  } catch (error) {
    if (error instanceof AdapterUnavailableError) return { candidates: [], problem: error.message };
    throw error;
  }
}

function adapterText(adapter: AdapterDescription, report: SelfTestReport): string {
  const { index, name, kind, origin, driver, features, languageFeatures, limits, subgroupMinSize, subgroupMaxSize } =
    adapter;
  const sizes = subgroupMinSize === subgroupMaxSize ? `${subgroupMinSize}` : `${subgroupMinSize} to ${subgroupMaxSize}`;
  const known = FEATURES.map((feature) => {
    if (!features.includes(feature)) return `no ${feature}`;
    return feature === "subgroups" && subgroupMaxSize > 0 ? `subgroups of ${sizes}` : feature;
  });
  if (languageFeatures.includes(NARROW_NEEDS.bytes)) known.push("dot products of bytes");
  const from = origin === "npm" ? ", the driver from npm" : "";
  const lines = [
    `${index} ${name}`,
    `  ${kind}${from}${driver === "" ? "" : ` · ${driver}`}`,
    `  ${known.join(" · ")}`,
    `  buffers of ${bytes(limits.maxBufferSize)} · bindings of ${bytes(limits.maxStorageBufferBindingSize)} · ` +
      `${limits.maxStorageBuffersPerShaderStage} storage buffers a stage · ` +
      `${bytes(limits.maxComputeWorkgroupStorageSize)} and ${limits.maxComputeInvocationsPerWorkgroup} lanes a workgroup`,
    `  ${precisions(adapter)}`,
    ...selfTestLines(report),
    ...knownFaults(adapter).map((fault) => `  known: ${fault}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** What `--precision` may be. */
function precisions(adapter: AdapterDescription): string {
  const gpu = { adapter, features: new Set(adapter.features) };
  const there = PRECISIONS.filter((it) => missingFor(gpu, it) === null);
  return `--precision ${there.join(", ")}${there.length > 1 ? "; matrices that are not of integer codes stay in f32" : ""}`;
}

function adviceFor(adapters: readonly AdapterDescription[]): string[] {
  if (adapters.length === 0 || adapters.some(({ kind }) => kind === "hardware")) return [];
  const lavapipe = adapters.some(({ name }) => /llvmpipe/i.test(name));
  return [
    "no GPU was found: all work is done by the CPU, at a few tokens a second. A GPU needs its Vulkan driver (on Linux), and shows up here then",
    ...(lavapipe
      ? []
      : [
          "lavapipe is several times as fast as SwiftShader: install mesa-vulkan-drivers 25 or later (in Debian 12 from its backports)",
        ]),
  ];
}
