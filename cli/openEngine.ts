/** Loads the model that a command line asks for and says what was chosen. */

import type { AdapterDescription } from "../device/adapters.ts";
import { bytes } from "../device/buffers.ts";
import type { StepEncoder } from "../device/profiler.ts";
import { Engine } from "../engine/engine.ts";
import type { LoadProgress } from "../engine/loadModel.ts";
import type { MemoryPlan } from "../engine/memoryPlan.ts";
import type { SharedDevice } from "../engine/options.ts";
import { precisionLine } from "../engine/precision.ts";
import type { ContextLimits } from "../engine/promptTokens.ts";
import { KV_TYPES } from "../kernels/attention/kv_types.ts";
import { PRECISIONS } from "../kernels/xFrom.ts";
import type { Context } from "./command.ts";
import { UsageError } from "./errors.ts";
import type { Arguments } from "./flags.ts";
import { given } from "./given.ts";
import type { MODEL_FLAGS } from "./modelFlags.ts";
import { openFolder } from "./openFolder.ts";
import { bar } from "./progress.ts";

const MAX_CONTEXT = 2 ** 24;

/** The model as the user named it. */
export function modelName(args: Arguments<"model">): string {
  const name = args.text("model") ?? "default";
  if (name === "")
    throw new UsageError("--model: is empty, expected a folder, owner/name, an https:// folder or `default`");
  return name;
}

/** Whether stdout is to hold JSON. Throws UsageError for an output there is not. */
export function wantsJson(args: Arguments<"json" | "output">): boolean {
  const output = args.text("output");
  if (output !== undefined && output !== "table" && output !== "json")
    throw new UsageError(`--output: is ${JSON.stringify(output)}, expected table or json`);
  if (output === "table" && args.has("json")) throw new UsageError("--json and --output table: only one may be given");
  return args.has("json") || output === "json";
}

/** What a command adds to the flags. */
interface OwnOptions {
  readonly device?: SharedDevice;
  /** A draft model, as the user named it. */
  readonly draft?: string | undefined;
  readonly profiler?: StepEncoder | undefined;
  readonly onProgress?: (progress: LoadProgress) => void;
}

/**
 * Checks the flags of loading at once, and returns what loads the model, with what the caller adds. The caller closes the engine.
 */
export function engineOpener(
  args: Arguments<keyof typeof MODEL_FLAGS>,
  { reporter, signal }: Context,
): (own?: OwnOptions) => Promise<Engine> {
  const model = modelName(args);
  const options = given({
    precision: args.oneOf("precision", ["auto", ...PRECISIONS]),
    kvType: args.oneOf("kv-type", KV_TYPES),
    context: args.integer("context", 2, MAX_CONTEXT),
    kvMemory: args.bytes("kv-memory"),
    adapter: args.text("adapter"),
  });
  return async (own = {}) => {
    reporter.status(`opening ${model}`);
    const folder = await openFolder(model, { reporter, signal });
    const draft = own.draft === undefined ? undefined : await openFolder(own.draft, { reporter, signal });
    const engine = await Engine.load(folder, {
      ...options,
      ...given({ device: own.device, profiler: own.profiler, draft }),
      signal,
      onPlan: (plan, adapter) => reporter.say(planLine(plan, adapter)),
      onProgress: (progress) => {
        own.onProgress?.(progress);
        reporter.status(progressLine(progress));
      },
    });
    reporter.clear();
    for (const note of notes(engine)) reporter.say(note);
    return engine;
  };
}

function progressLine({ stage, loaded, total }: LoadProgress): string {
  const size = bytes(total);
  const all = { download: size, weights: size, kernels: `${total}`, "warm-up": `${total} steps` } as const;
  return `${stage} ${bar(loaded / total)} of ${all[stage]}`;
}

function planLine(plan: MemoryPlan, { name, kind }: AdapterDescription): string {
  const { weights, kv, states, sequences, tokens, context, longest, trained } = plan;
  const adapter = kind === "software" ? `${name} (software, see \`ingle doctor\`)` : name;
  const kept = states === 0 ? "" : ` · states ${bytes(states)} for ${sequences} at once`;
  const memory = `weights ${bytes(weights)} · kv ${bytes(kv)} for ${tokens} tokens${kept} · context ${context}${contextNote({ context, longest, trained })}`;
  return `${adapter} · ${memory}`;
}

/** What more would fit, and how the context stands to what the model was made for. */
function contextNote({ context, longest, trained }: ContextLimits): string {
  const fits = longest > context ? ` of ${longest} that fit` : "";
  if (context > trained) return `${fits}, past the ${trained} that the model was made for`;
  return context === trained ? `${fits}, the model's own` : fits;
}

/** What the checkpoint asks for and does not get. */
function notes({ precision, model: { generation, stopIds, tokenizer } }: Engine): string[] {
  const { ignored } = generation;
  return [
    ...(precision.mode === "f32" ? [] : [precisionLine(precision)]),
    ...(ignored.length === 0
      ? []
      : [`generation_config.json: ${ignored.join(", ")} not applied; ingle has no such sampling`]),
    ...(stopIds.length > 0 || tokenizer === undefined
      ? []
      : ["no token is known to end an answer; it goes on to --max-tokens"]),
  ];
}
