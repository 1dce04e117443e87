/** `ingle inspect`: what is in a model or a safetensors file, and whether it would load. Never opens a GPU. */
import { statSync } from "node:fs";
import { openFile } from "../device/nodeFiles.ts";
import { ModelFormatError } from "../models/errors.ts";
import { httpSource } from "../models/httpSource.ts";
import { type Checkpoint, openWeights } from "../models/weights/checkpoint.ts";
import { escapeName } from "../models/weights/escape.ts";
import { countNonFinite } from "../models/weights/nonFinite.ts";
import { elementCount } from "../models/weights/tensorInfo.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { inspectModel } from "./inspectModel.ts";
import { OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { jsonLine, print } from "./output.ts";
import { tensorRows, tensorTable } from "./tensorTable.ts";

const FLAGS = {
  context: { short: "c", value: "TOKENS", help: "tokens to count memory for (default the model's own)" },
  strict: { help: "reads every weight and refuses those that are no finite numbers" },
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof FLAGS>;

export const inspect: Command = {
  usage: "inspect (MODEL | FILE.safetensors)",
  summary: "formats, sizes, memory; what would not load and why",
  flags: FLAGS,
  more: `examples:
  ingle inspect default -c 1024
  ingle inspect model-00001-of-00002.safetensors --json | jq -r '.tensors[].name'`,
  run: inspectCommand,
};

async function inspectCommand(args: Flags, context: Context): Promise<number> {
  const json = wantsJson(args);
  const [target, ...more] = args.positionals;
  if (target === undefined || target === "") throw new UsageError("MODEL: is not given, expected a model or a file");
  if (more.length > 0) throw new UsageError(`${more[0]}: is one name too many, expected one model or file`);
  const length = args.integer("context", 1, 2 ** 24);
  const strict = (checkpoint: Checkpoint) =>
    args.has("strict") ? checkFinite(checkpoint, context) : Promise.resolve();
  if (!isFile(target)) return await inspectModel(target, { ...context, json, context: length, check: strict });
  if (length !== undefined) throw new UsageError("--context: one file has no context; give the model's folder");
  const source = isUrl(target) ? await httpSource(target, { fetch: globalThis.fetch }) : await openFile(target);
  const checkpoint = await openWeights(source, context.signal);
  try {
    await strict(checkpoint);
    print(json ? fileJson(checkpoint) : fileText(checkpoint));
    return EXIT.done;
  } finally {
    await checkpoint.close();
  }
}

const isUrl = (target: string) => /^https?:\/\//i.test(target);

function isFile(target: string): boolean {
  if (isUrl(target)) return /\.safetensors$/i.test(new URL(target).pathname);
  const found = statSync(target, { throwIfNoEntry: false });
  // What is not there is looked for as what its name says it is, so that the message fits.
  return found === undefined ? /\.safetensors$/i.test(target) : !found.isDirectory();
}

function fileJson({ tensors, metadata }: Checkpoint): string {
  return jsonLine({ tensors: tensorRows(tensors.values()), metadata: Object.fromEntries(metadata) });
}

function fileText({ tensors, metadata }: Checkpoint): string {
  const about = Array.from(metadata, ([key, value]) => `${escapeName(key)}: ${escapeName(value)}\n`).join("");
  return about + tensorTable([...tensors.values()]);
}

/** Throws ModelFormatError that names the first tensor with a NaN or an infinity in it. */
async function checkFinite(checkpoint: Checkpoint, { reporter, signal }: Context): Promise<void> {
  let done = 0;
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    let bad = 0;
    for await (const { bytes } of checkpoint.stream(name, { signal })) {
      bad += countNonFinite(dtype, bytes);
      done += bytes.length;
      reporter.status(`reading weights, ${Math.floor((100 * done) / checkpoint.bytes)} %`);
    }
    if (bad === 0) continue;
    const message = `${bad} of ${elementCount(shape)} values are NaN or infinite, expected numbers; do not use this file`;
    throw new ModelFormatError("NON_FINITE", `${escapeName(name)}: ${message}`, { tensor: name });
  }
  reporter.clear();
}
