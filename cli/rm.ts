/** `ingle rm`: models out of the cache. */
import { createInterface } from "node:readline/promises";
import { bytes } from "../device/buffers.ts";
import { parseHubId } from "../device/hubId.ts";
import type { Removal } from "../device/nodeHubStock.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { notAnId } from "./hubNames.ts";
import { OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { jsonLine, print } from "./output.ts";

const FLAGS = {
  yes: { short: "y", help: "asks nothing" },
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;

/** The command. */
export const rm: Command = {
  usage: "rm ID",
  summary: "removes models from the cache, or one revision as ID@revision",
  flags: FLAGS,
  more: `Files that another revision uses too stay. What is removed is gone for Python's tools as well.

examples:
  ingle rm HuggingFaceTB/SmolLM2-135M-Instruct
  ingle rm --yes HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f`,
  run: rmCommand,
};

async function rmCommand(args: Arguments<keyof typeof FLAGS>, { signal }: Context): Promise<number> {
  const json = wantsJson(args);
  const wanted = args.positionals.map(modelOf);
  if (wanted.length === 0) throw new UsageError("ID: is not given, expected owner/name as `ingle ls` lists it");
  const [{ planRemoval, remove }, { hubSettings }] = await Promise.all([
    import("../device/nodeHubStock.ts"),
    import("../device/nodeHubSettings.ts"),
  ]);
  const { cache } = await hubSettings();
  // All of them are looked up before anything is gone.
  const plans: Removal[] = [];
  for (const { name, revision } of wanted) plans.push(await planRemoval(cache, name, revision));
  for (const plan of plans) {
    const { name } = plan;
    const what = plan.revision === undefined ? name : `${name}@${plan.revision.commit.slice(0, 12)}`;
    if (!args.has("yes") && !(await agrees(`remove ${what}, ${bytes(plan.bytes)}?`, signal))) {
      process.stderr.write(`${what} stays\n`);
      return EXIT.failed;
    }
    await remove(plan);
    print(
      json
        ? jsonLine({ id: name, commit: plan.revision?.commit ?? null, freed_bytes: plan.bytes })
        : `${what} removed, ${bytes(plan.bytes)} freed\n`,
    );
  }
  return EXIT.done;
}

/** A model as `ls` lists it: also of the first days of the hub, without an owner. */
function modelOf(word: string): { readonly name: string; readonly revision: string | undefined } {
  const [name = "", revision] = word.split("@");
  const known = parseHubId(word) ?? (name.includes("/") ? undefined : parseHubId(`owner/${word}`));
  if (known === undefined) throw notAnId(word);
  return { name, revision };
}

async function agrees(question: string, signal: AbortSignal): Promise<boolean> {
  if (process.stdin.isTTY !== true) throw new UsageError(`${question} nobody is there to answer; give --yes`);
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await reader.question(`${question} [y/N] `, { signal })).trim());
  } finally {
    reader.close();
  }
}
