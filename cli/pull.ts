/** `ingle pull`: models of the hub into the cache, without loading them. */
import { hubIdText } from "../device/hubId.ts";
import type { Command, Context } from "./command.ts";
import { EXIT } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { hubIds } from "./hubNames.ts";
import { OUTPUT_FLAGS } from "./modelFlags.ts";
import { wantsJson } from "./openEngine.ts";
import { showingDownload } from "./openFolder.ts";
import { jsonLine, print } from "./output.ts";
import { Reporter } from "./progress.ts";

const FLAGS = { ...OUTPUT_FLAGS } as const satisfies FlagTable;

/** The command. */
export const pull: Command = {
  usage: "pull ID",
  summary: "downloads models of the hub into the cache that Python's tools use too",
  flags: FLAGS,
  more: `ID is owner/name or owner/name@revision, with a branch, a tag or a commit; several may be given. The files that
ingle reads are fetched and checked against the hub's hashes; stopped by Ctrl-C, the next run goes on. stdout has the folder.

HF_TOKEN: who asks, for models that need it   HF_ENDPOINT: another hub   HF_HUB_OFFLINE=1: nothing is asked
HF_HUB_CACHE, HF_HOME: where the cache is (default ~/.cache/huggingface/hub)

examples:
  ingle pull HuggingFaceTB/SmolLM2-135M-Instruct
  ingle run -m HuggingFaceTB/SmolLM2-135M-Instruct "Why is the sky blue?"`,
  run: pullCommand,
};

async function pullCommand(args: Arguments<keyof typeof FLAGS>, { reporter, signal }: Context): Promise<number> {
  const json = wantsJson(args);
  const ids = hubIds(args.positionals);
  const { pullModel } = await import("../device/nodeHub.ts"); // the hub's client is large: only who needs it waits for it
  const shown = json ? new Reporter({ quiet: true, verbose: false }) : reporter;
  for (const id of ids) {
    const { commit, path } = await showingDownload(hubIdText(id), { reporter: shown, signal }, (options) =>
      pullModel(id, options),
    );
    print(json ? jsonLine({ id: id.name, revision: id.revision, commit, path }) : `${path}\n`);
  }
  return EXIT.done;
}
