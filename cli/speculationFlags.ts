/** Who proposes tokens: flags of `ingle run` and `ingle bench`, and what they ask of an engine and of each request. */
import { MAX_DRAFT_TOKENS } from "../engine/request.ts";
import type { SpeculationWish } from "../engine/types.ts";
import { UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { given } from "./given.ts";

/** Flags that change the time an answer takes, and nothing that it may say. */
export const SPECULATION_FLAGS = {
  draft: { value: "MODEL", help: "a smaller model of the same vocabulary, as for --model, that proposes tokens" },
  "draft-tokens": { value: "K", help: `proposals in every step, at most ${MAX_DRAFT_TOKENS} (default as many as pay)` },
  "prompt-lookup": { help: "proposals from the text so far: for answers that repeat their prompt" },
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof SPECULATION_FLAGS>;

/** The draft model as the user named it. */
export function draftName(args: Arguments<"draft">): string | undefined {
  const name = args.text("draft");
  if (name === "") throw new UsageError("--draft: is empty, expected a model, as for --model");
  return name;
}

/** The request's field; undefined where nothing is said. Throws UsageError that names the flag. */
export function speculationRequest(args: Flags): SpeculationWish | undefined {
  args.atMostOne("draft", "prompt-lookup");
  const draftTokens = args.integer("draft-tokens", 1, MAX_DRAFT_TOKENS);
  const promptLookup = args.has("prompt-lookup") || undefined;
  if (draftTokens !== undefined && draftName(args) === undefined && promptLookup === undefined)
    throw new UsageError("--draft-tokens: nobody proposes tokens; add --draft MODEL or --prompt-lookup");
  return draftTokens === undefined && promptLookup === undefined ? undefined : given({ draftTokens, promptLookup });
}
