/** `ingle bench`: how fast a model reads prompts and generates, as llama-bench asks it, with all that a number depends on. */
import { conditionLines } from "../bench/conditions.ts";
import { type DecodeStep, StepTap } from "../bench/decodeStep.ts";
import { checkProved } from "../bench/gate.ts";
import { RATIO_HEAD, type Ratio, ratioCells } from "../bench/ratios.ts";
import { measureSpeed } from "../bench/speed.ts";
import { speedRatios } from "../bench/speedRatios.ts";
import {
  draftLine,
  draftRecord,
  noiseOf,
  SPEED_HEAD,
  type SpeedRecord,
  speedCells,
  speedRecord,
} from "../bench/speedReport.ts";
import { type SpeedTest, speedTests, testName } from "../bench/speedTest.ts";
import { csv, markdown } from "../bench/tables.ts";
import { openGpu } from "../device/gpu.ts";
import { MAX_ROWS } from "../engine/batch.ts";
import type { Engine } from "../engine/engine.ts";
import type { SpeculationWish } from "../engine/types.ts";
import { Random, Testbed } from "../kernels/testbed.ts";
import { conditionsOf, type Measured } from "./benchConditions.ts";
import { decodeLine, decodeStepOf, LoadClock, type LoadTime, loadLine, profileOne } from "./benchExtras.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { given } from "./given.ts";
import { MODEL_FLAGS, PLANNED_FLAGS } from "./modelFlags.ts";
import { engineOpener, modelName } from "./openEngine.ts";
import { jsonLine, print, table } from "./output.ts";
import { PROFILE_FLAGS, type ProfileTarget, profileTarget, writeProfile } from "./profile.ts";
import { bar } from "./progress.ts";
import { draftName, SPECULATION_FLAGS, speculationRequest } from "./speculationFlags.ts";

const OUTPUTS = ["table", "md", "csv", "json", "jsonl"] as const;
const SEED = 1;

const FLAGS = {
  ...MODEL_FLAGS,
  ...SPECULATION_FLAGS,
  ...PROFILE_FLAGS,
  "prompt-tokens": { short: "p", value: "TOKENS", help: "lengths of prompts, as 128,512 (default 128); 0 for none" },
  "max-tokens": { short: "n", value: "TOKENS", help: "tokens to generate, as 64 (default 32); 0 for none" },
  depth: { short: "d", value: "TOKENS", help: "tokens that are in the cache before, as 0,1024 (default 0)" },
  text: { value: "TEXT", help: "what generation goes on from, instead of random tokens; not with --depth" },
  batch: { short: "b", value: "REQUESTS", help: "requests at once, as 1,4 (default 1)" },
  repetitions: { short: "r", value: "COUNT", help: "of each test, after a warm-up (default 5)" },
  seed: { value: "SEED", help: `of the random prompts, all of them different (default ${SEED})` },
  json: { help: "short for -o json" },
  output: { short: "o", value: OUTPUTS.join("|"), help: "what stdout holds (default table)" },
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof FLAGS>;

export const bench: Command = {
  usage: "bench [-m MODEL]",
  summary: "prompt and generation speed, a row a test",
  flags: FLAGS,
  planned: PLANNED_FLAGS,
  more: `examples:
  ingle bench -m ./SmolLM2-135M-Instruct -p 128,512 -n 64 -d 0,1024 -b 1,4
  ingle bench -p 0 -n 128 --draft default-draft --text "Once upon a time"
  ingle bench -o json | jq '.rows[] | [.test, .batch, .speed.tokens_per_second.mean]'
pp128 computes a prompt of 128 tokens, tg32 generates 32 after one, tg32@d1024 after 1024. t/s is of all requests together.
Where tokens are proposed, tg32+draft has that, by turns with tg32, and the ratio of both is among those at the end.
Requests are greedy, go past the end of text, and take the way of every request: sampler and text are in the time. Before anything
is timed, the model's kernels pass their cases on this adapter. A row whose prompts met a cache, or of which a repetition failed,
has no speed, and the exit code is 1. docs/benchmarks.md explains the columns.`,
  run: benchCommand,
};

async function benchCommand(args: Flags, context: Context): Promise<number> {
  const output = outputOf(args);
  const [extra] = args.positionals;
  if (extra !== undefined) throw new UsageError(`${extra}: bench takes no names; did you mean -m ${extra}?`);
  const tests = testsOf(args);
  const repetitions = args.integer("repetitions", 1, 1000) ?? 5;
  const seed = args.integer("seed", 0, 2 ** 32 - 1) ?? SEED;
  const speculation = speculationRequest(args);
  const open = engineOpener(args, context);
  const target = profileTarget(args);
  const gpu = await openGpu(given({ adapter: args.text("adapter") }));
  const bed = new Testbed(gpu);
  try {
    // The pipelines that pass are those that are timed.
    const tap = new StepTap(target?.profiler);
    const clock = new LoadClock();
    const { onProgress } = clock;
    const device = { gpu, pipelines: bed.pipelines };
    const engine = await open({ device, profiler: tap, onProgress, draft: draftName(args) });
    const load = clock.stop();
    try {
      const code = await measureAll(engine, bed, {
        args,
        context,
        output,
        tests,
        repetitions,
        seed,
        speculation,
        target,
        tap,
        load,
      });
      if (target !== undefined) await writeProfile(target, engine, args, context.reporter);
      return code;
    } finally {
      await engine.close();
    }
  } finally {
    bed.close();
    gpu.close();
  }
}

interface Plan {
  readonly args: Flags;
  readonly context: Context;
  readonly output: (typeof OUTPUTS)[number];
  readonly tests: readonly SpeedTest[];
  readonly repetitions: number;
  readonly seed: number;
  readonly speculation: SpeculationWish | undefined;
  readonly target: ProfileTarget | undefined;
  readonly tap: StepTap;
  readonly load: LoadTime;
}

/** Proves the model's kernels, then measures test after test. Returns the exit code. */
async function measureAll(engine: Engine, bed: Testbed, plan: Plan): Promise<number> {
  const { output, tests, repetitions, seed } = plan;
  const { reporter, signal } = plan.context;
  const { measured, subject } = await conditionsOf(engine, bed, { ...plan, model: modelName(plan.args) });
  for (const line of conditionLines(measured)) reporter.say(line);
  reporter.say(loadLine(measured.load));
  const { config, tokenizer } = engine.model;
  const vocabulary = Math.min(config.vocab_size, tokenizer?.size ?? Number.POSITIVE_INFINITY);
  const random = new Random(seed);
  const records: SpeedRecord[] = [];
  const proposes = plan.speculation !== undefined || engine.draft !== undefined;
  for (const test of tests) {
    const onRepetition = (it: SpeedTest, i: number) =>
      reporter.status(`${testName(it)} of batch ${it.batch} ${bar((i + 1) / (repetitions + 1))}`);
    const { speculation, args } = plan;
    const shared = { repetitions, vocabulary, rowsPerStep: MAX_ROWS, random, signal, onRepetition };
    const options = { ...shared, ...given({ speculation, text: textOf(args, engine) }) };
    const before = engine.stats().draft;
    const turns = proposes && test.kind === "tg" ? [test, { ...test, drafted: true }] : [test];
    const rows = await measureSpeed(engine, turns, options);
    const drafts = draftRecord(before, engine.stats().draft);
    for (const row of rows) {
      const record = speedRecord(row, subject, row.drafted === true ? drafts : undefined);
      records.push(record);
      reporter.clear();
      if (output === "jsonl") print(jsonLine({ ...record, conditions: measured }));
      for (const line of notes(record)) reporter.say(line);
      if (plan.target !== undefined && record.error === null) await profileOne(engine, plan.target, row, options);
    }
  }
  checkProved(plan.tap.launched, measured.checks);
  const step = await decodeStepOf(engine, plan.tap, plan.context);
  const ratios = speedRatios(records, step);
  if (output !== "jsonl") print(report(output, measured, records, { step, ratios }));
  if (output !== "json") {
    if (step !== undefined) reporter.say(decodeLine(step));
    for (const line of table(RATIO_HEAD, ratioCells(ratios)).trimEnd().split("\n")) {
      if (ratios.length > 0) reporter.say(line);
    }
  }
  return records.every(({ error }) => error === null) ? EXIT.done : EXIT.failed;
}

/** What there is to say of a row besides its numbers. */
function notes(record: SpeedRecord): string[] {
  const name = `${record.test} of batch ${record.batch}`;
  const accepted = record.draft === undefined ? undefined : draftLine(record.draft);
  const lines = [
    record.error === null ? undefined : `${name} failed: ${record.error}`,
    noiseOf(record),
    accepted === undefined ? undefined : `${name}: ${accepted}`,
  ];
  return lines.filter((line) => line !== undefined);
}

/** What generation goes on from, as tokens. */
function textOf(args: Flags, engine: Engine): readonly number[] | undefined {
  const prompt = args.text("text");
  return prompt === undefined ? undefined : engine.encode({ prompt });
}

function report(
  output: Exclude<Plan["output"], "jsonl">,
  measured: Measured,
  records: readonly SpeedRecord[],
  { step, ratios }: { readonly step: DecodeStep | undefined; readonly ratios: readonly Ratio[] },
): string {
  const cells = records.map(speedCells);
  switch (output) {
    case "table":
      return table(SPEED_HEAD, cells);
    case "md":
      return `${markdown(SPEED_HEAD, cells)}\n${conditionLines(measured).join("  \n")}\n`;
    case "csv":
      return csv(SPEED_HEAD, cells);
    case "json":
      return jsonLine({ conditions: measured, rows: records, decode_step: step ?? null, ratios });
    default:
      return output satisfies never;
  }
}

function outputOf(args: Flags): Plan["output"] {
  const output = args.oneOf("output", OUTPUTS);
  if (!args.has("json")) return output ?? "table";
  if (output !== undefined && output !== "json")
    throw new UsageError(`--json and --output ${output}: only one may be given`);
  return "json";
}

function testsOf(args: Flags): SpeedTest[] {
  const tests = speedTests({
    prompts: integers(args, "prompt-tokens", 0) ?? [128],
    generated: integers(args, "max-tokens", 0) ?? [32],
    depths: integers(args, "depth", 0) ?? [0],
    batches: integers(args, "batch", 1) ?? [1],
  });
  if (tests.length === 0) throw new UsageError("-p 0 and -n 0: there is nothing to measure");
  if (args.text("text") !== undefined && tests.some(({ depth }) => depth > 0))
    throw new UsageError("--text and --depth: only one may be given");
  return tests;
}

const MOST = 2 ** 24;

function integers(args: Flags, name: "prompt-tokens" | "max-tokens" | "depth" | "batch", least: number) {
  const text = args.text(name);
  if (text === undefined) return undefined;
  const values = /^\d+(,\d+)*$/.test(text) ? text.split(",").map(Number) : [];
  if (values.length > 0 && values.every((it) => it >= least && it <= MOST)) return [...new Set(values)];
  throw new UsageError(`--${name}: is ${JSON.stringify(text)}, expected whole numbers from ${least} such as 1,4`);
}
