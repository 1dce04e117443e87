/** `--profile FILE`: a trace of every dispatch, a table of where the time went, and how often each expert was chosen. */
import { writeFileSync } from "node:fs";
import { CHOSEN_HEAD, chosenCells, chosenCounts } from "../bench/chosenExperts.ts";
import { chromeTrace } from "../bench/chromeTrace.ts";
import { PROFILE_HEAD, profileCells, profileGroups } from "../bench/profileSummary.ts";
import { Profiler } from "../device/profiler.ts";
import type { Engine } from "../engine/engine.ts";
import { UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { modelName } from "./openEngine.ts";
import { table } from "./output.ts";
import type { Reporter } from "./progress.ts";
import { version } from "./version.ts";
import { mostBytes } from "./weightLabel.ts";

/** The flag of commands that compute. */
export const PROFILE_FLAGS = {
  profile: {
    value: "FILE",
    help: "times every dispatch: a trace for Perfetto or chrome://tracing, and a table on stderr; counts the experts that were chosen",
  },
} as const satisfies FlagTable;

/** Kinds of steps that are less of the time have no table. */
const SHOWN = 0.05;

/** A profiler with the file that it is for. */
export interface ProfileTarget {
  readonly profiler: Profiler;
  readonly file: string;
}

/** What --profile asks for, if it is given. Begins the file, so that a place that cannot be written to is known at once. */
export function profileTarget(args: Arguments<"profile">): ProfileTarget | undefined {
  const file = args.text("profile");
  if (file === undefined) return undefined;
  try {
    writeFileSync(file, "");
  } catch (cause) {
    throw new UsageError(`--profile ${file}: cannot be written, expected a file's name in a folder that is there`, {
      cause,
    });
  }
  return { profiler: new Profiler(), file };
}

/** Writes the trace and says where the time went. To be called before the engine is closed. */
export async function writeProfile(
  { profiler, file }: ProfileTarget,
  engine: Engine,
  args: Arguments<"model">,
  reporter: Reporter,
): Promise<void> {
  profiler.stop();
  const steps = await profiler.steps();
  const { name, driver, kind } = engine.gpu.adapter;
  const conditions = {
    ingle: version(),
    date: new Date().toISOString(),
    model: modelName(args),
    weights: mostBytes(engine.model.weights.matrices),
    kv_type: engine.kvType,
    precision: engine.precision.mode,
    adapter: name,
    driver,
    adapter_kind: kind,
    clock: "timestamp-query, a pass a dispatch: steps take longer than without --profile",
  };
  const chosen = chosenCounts(steps, engine.model.config.moe?.routing.experts ?? 0);
  const all = chosen.length === 0 ? conditions : { ...conditions, experts_chosen: chosen };
  writeFileSync(file, JSON.stringify(chromeTrace(steps, all)));
  const groups = profileGroups(steps);
  const total = groups.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  for (const { title, steps: count, milliseconds, lines } of groups.filter((it) => it.milliseconds > SHOWN * total)) {
    const each = (milliseconds / count).toFixed(2);
    reporter.say(`\n${title} · ${count} step${count === 1 ? "" : "s"} of ${each} ms`);
    for (const line of table(PROFILE_HEAD, profileCells(lines)).trimEnd().split("\n")) reporter.say(line);
  }
  if (chosen.length > 0) {
    reporter.say("");
    for (const line of table(CHOSEN_HEAD, chosenCells(chosen)).trimEnd().split("\n")) reporter.say(line);
  }
  reporter.say(`\n${steps.reduce((sum, { dispatches }) => sum + dispatches.length, 0)} dispatches are in ${file}`);
}
