/** `ingle ls`: the models in the cache. */
import { bytes } from "../device/buffers.ts";
import type { CachedModel } from "../device/nodeHubStock.ts";
import type { Command } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { jsonLine, print, printable, table } from "./output.ts";

const FLAGS = { ...OUTPUT_FLAGS } as const satisfies FlagTable;

/** The command. */
export const ls: Command = {
  usage: "ls",
  summary: "models in the cache: revision, size, last used",
  flags: FLAGS,
  more: "What Python's tools downloaded is listed too. `ingle run -m ID` takes an id of the list.",
  run: lsCommand,
};

async function lsCommand(args: Arguments<keyof typeof FLAGS>): Promise<number> {
  const json = wantsJson(args);
  if (args.positionals.length > 0) throw new UsageError(`${args.positionals[0]}: ls takes no names`);
  const [{ cachedModels }, { hubSettings }] = await Promise.all([
    import("../device/nodeHubStock.ts"),
    import("../device/nodeHubSettings.ts"),
  ]);
  const { cache } = await hubSettings();
  const models = await cachedModels(cache);
  print(json ? models.map(jsonOf).join("") : textOf(models, cache));
  return EXIT.done;
}

function jsonOf({ name, revisions, unfinished }: CachedModel): string {
  const rows = revisions.map(({ commit, refs, path, bytes: size, lastUsed, complete }) =>
    jsonLine({ id: name, commit, refs, path, bytes: size, last_used: lastUsed.toISOString(), complete }),
  );
  return rows.join("") + (unfinished > 0 ? jsonLine({ id: name, unfinished_bytes: unfinished }) : "");
}

function textOf(models: readonly CachedModel[], cache: string): string {
  const rows = models.flatMap(({ name, revisions, unfinished }) => [
    ...revisions.map(({ commit, refs, bytes: size, lastUsed, complete }) => [
      printable(name),
      printable([...refs, commit.slice(0, 12)].join(" ")),
      bytes(size),
      lastUsed.getTime() === 0 ? "" : lastUsed.toISOString().slice(0, 16).replace("T", " "),
      complete ? "" : "not whole",
    ]),
    ...(unfinished > 0 ? [[printable(name), "", bytes(unfinished), "", "broken off"]] : []),
  ]);
  if (rows.length === 0) return `no models in ${printable(cache)}\n`;
  return `${table(["id", "revision", ">size", "last used (UTC)", ""], rows)}${printable(cache)}\n`;
}
